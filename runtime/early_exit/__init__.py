"""Early exit at inference: the rest of a model runs only for frames that no exit is sure of.

- `session.py`: the session of a bundle's segments, for every backend that can open them.
- `open.py`: which backends can, and whether the bundle has what it takes.
- `record.py`: how many frames left where, and how many of them rightly.

It knows no runtime of its own: `finedge.runtime.ort` and `finedge.runtime.trt` open the segments.
"""
