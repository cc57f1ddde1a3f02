"""Quantization-aware training, through nvidia-modelopt."""
