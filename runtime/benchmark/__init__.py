"""Accuracy and latency of every variant of one or more bundles, in one interleaved run."""
