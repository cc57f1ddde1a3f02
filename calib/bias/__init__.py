"""The mean shift of each layer's output, taken from its bias."""
