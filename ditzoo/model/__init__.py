"""The functions for users of the package: load and sample a model, list, pull and export models, and compare backends."""
