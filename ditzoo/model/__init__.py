"""What users of the package call: load a model, sample it, list, pull and export models, and compare backends."""
