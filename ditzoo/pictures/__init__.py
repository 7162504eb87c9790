"""TODO ditzoo.pictures."""
