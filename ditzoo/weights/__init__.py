"""TODO ditzoo.weights."""
