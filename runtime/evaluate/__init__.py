"""The accuracy of a bundle on labelled images, through the path that the camera takes.

- `labelled.py`: the labelled images of a bundle, by the split that its training stored.
- `predict.py`: the answers of a classifier on them, and their accuracy.
- `command.py`: `finedge evaluate`. `show.py`: its table on a terminal.

It may import the classifier and the backends of the runtime. The benchmark, `verify` and `calib`
use `labelled` and `predict`.
"""
