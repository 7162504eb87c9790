"""Pictures: latents decoded to pixels, text encoders for prompts, contact sheets, and the request inside a PNG file."""
