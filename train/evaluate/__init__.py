"""The accuracy of a run on a split, in PyTorch."""
