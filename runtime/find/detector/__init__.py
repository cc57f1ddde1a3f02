"""A user's detector, `--find MODEL.onnx`, in ONNX Runtime.

- `detector.py`: frames in, boxes out.
- `layouts.py`: the known forms of a model's outputs, and which one a model has.
- `yolo.py`, `detr.py`, `ssd.py`: outputs to boxes, a module for each family.
- `network_input.py`: a frame as each family wants it.
- `class_names.py`: the detector's classes, and which of them count.
"""
