"""What validation images say of each variant: confidence, and the cost in accuracy."""
