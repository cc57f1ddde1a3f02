"""Runs a bundle on a device: backends, classifier, sources, stream, sinks, benchmark, report.

The way of a frame: `sources` > `stream` > `classifier` > `backend` (`ort`, `trt`) > `sinks`.
It may import the contract (`finedge/*.py`, `finedge.graph`, `finedge.data`, `finedge.image`).
It never imports torch, training, export or calibration.
The commands of `finedge.cli`, `export`, `calib` and `jetson` call it.
"""
