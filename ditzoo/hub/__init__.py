"""Downloads from the Hugging Face Hub: the client, what earlier downloads are held to, and verified files."""
