"""Weights: pulled from the Hub or imported from a file, converted, stored, found, loaded, and given to others."""
