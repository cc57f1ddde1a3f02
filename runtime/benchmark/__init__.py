"""Accuracy and latency of every variant in one interleaved run: real frames in, top-k out, raw samples kept."""
