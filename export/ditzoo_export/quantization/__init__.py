"""Eight-bit graphs from float32 ones: which layers, with which scales, and how they are written."""
