"""TODO ditzoo.sampling."""
