"""Measurements: image metrics, parity between backends, bisection of differences, benchmarks, and the reports of them."""
