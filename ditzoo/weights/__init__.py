"""Weights: pull them from the Hub or import them from a file, convert, store, find, load and share them."""
