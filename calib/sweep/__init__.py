"""`finedge sweep`: the command of `finedge.train.sweep`, and the INT8 of what val chose.

The command is on this floor because it exports and calibrates. `train` imports neither.

- `command.py`, `show.py`: the command, and its tables.
- `int8.py`: a chosen run becomes a calibrated bundle, which answers on the test split.
- `times.py`: the CPU time of the bundles of a group, interleaved.
"""
