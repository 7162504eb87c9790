"""TODO ditzoo.measure."""
