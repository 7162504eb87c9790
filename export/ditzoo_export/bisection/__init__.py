"""Finding the place of a fault in a network: by the outputs of its modules, and by comparing its graphs with a fresh export."""
