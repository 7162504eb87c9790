"""Plans: a sampler as a table of numbers, made by running a solver once on unit vectors."""
