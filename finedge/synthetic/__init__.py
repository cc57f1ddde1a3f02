"""Synthetic pictures: a rendered fine-grained data set, and perturbations of photos.

The set shows birds whose species differ only in small parts. Everything is seeded and offline, with
numpy and cv2 only. It may import the contract (`finedge/*.py`, `finedge/data`, `finedge/image`).
Training, evaluation, the benchmark and the demo source use it.
"""
