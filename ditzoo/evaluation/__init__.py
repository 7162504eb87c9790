"""Scores of large sets of pictures: Fréchet distances, Inception Score, precision and recall, on any feature network."""
