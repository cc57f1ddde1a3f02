"""`finedge verify`: compares every stage of a bundle and names the first that diverges.

- `verification.py`: what is compared: the bundle, a backend, and optionally a run and images.
- `stages.py`: the comparisons: preprocessing, taps, logits, and top-1 on real images.
- `command.py`: the command line. `show.py`: its table on a terminal.

It may import the backends, `agreement` and `evaluate` of the runtime. Only `finedge.cli` calls it.
"""
