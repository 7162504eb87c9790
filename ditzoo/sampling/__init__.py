"""Sampling: the noise of each image, its condition, the loop that runs a plan, and what was asked for, as data."""
