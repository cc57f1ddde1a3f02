"""Layers the models share."""
