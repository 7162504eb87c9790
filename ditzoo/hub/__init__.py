"""Downloads from the Hugging Face Hub: the client, the pinned revisions and checksums, and verified files."""
