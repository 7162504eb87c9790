"""Plans: the table that a solver is traced into, how it is made for a card, and schedulers of diffusers as such tables."""
