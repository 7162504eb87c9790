"""TODO ditzoo.plan."""
