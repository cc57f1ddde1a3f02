"""The stage before the classifier: where in a frame the things are.

- `box.py`: a rectangle of a frame.
"""
