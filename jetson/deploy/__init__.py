"""A bundle onto a board over the system's ssh: copied beside the running one, proven there, swapped in at once, taken back if it fails."""
