"""What held-out training images decide: the method, the mode of attention."""
