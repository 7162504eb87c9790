"""Making quantized graphs from float32 graphs: choosing the layers, measuring the scales, and writing the graphs."""
