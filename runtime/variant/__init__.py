"""Which variant `auto` runs on this machine: each is timed, and its cost in accuracy is looked up.

`choose.py` asks the others: `timing.py` and `speed.py` measure, `rule.py` decides, `memory.py`
remembers, and `islands.py` names what stays in float.
"""
