"""Visits: one thing that came, stayed and left; and where they are reported.

- `event.py`: the start or the end of a visit, and its JSON line.
"""
