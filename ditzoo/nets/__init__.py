"""The networks, in PyTorch. Each reads like its paper; `ditzoo.families` says what is particular to it."""
