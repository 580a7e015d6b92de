"""Round weights and activations: grids, quantizers, whole models, and files."""
