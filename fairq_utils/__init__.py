"""Who pays when a neural network is quantized, why, and how to repair it."""

__version__ = "0.1.0"
