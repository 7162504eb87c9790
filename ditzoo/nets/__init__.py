"""The networks, in PyTorch. The code of each network follows its paper. `ditzoo.families` holds what differs between them."""
