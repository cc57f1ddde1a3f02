"""What this machine can run: its facts, the problems in them, and how to fix those."""
