"""Pictures: decoders of latents, text encoders for prompts, contact sheets, and the request that a PNG file holds."""
