"""Fair comparisons of models: `finedge sweep`."""
