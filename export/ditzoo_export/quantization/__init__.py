"""TODO ditzoo_export.quantization."""
