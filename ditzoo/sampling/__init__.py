"""Sampling: the noise and the condition of each image, the loop that runs a plan, and the request for a sampling run."""
