"""TODO ditzoo_export.bisection."""
