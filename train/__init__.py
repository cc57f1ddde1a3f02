"""Training: models, layers, data sets, recipes, the trainer (PyTorch)."""
