"""Finding where a network goes wrong: by the outputs of its modules, and by comparing its graphs with a fresh export."""
