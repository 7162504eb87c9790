"""Measurements: image metrics, parity between backends, bisection of differences, benchmarks, and reports."""
