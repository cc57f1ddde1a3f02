"""The stage before the classifier: where in a frame the things are.

- `box.py`: a rectangle of a frame.
- `finder.py`: what a finder is: a frame in, boxes out.
- `motion.py`, `merge.py`: what moves, by background subtraction on a small copy.
- `detector`: a user's ONNX detector.
- `zones.py`: the parts of the picture that count.
- `crops.py`: the square that the classifier sees for a box.
- `camera.py`: the finder of one source, with its zones and its limit of boxes.
- `options.py`: the options of `finedge classify`, and what opens the finders.
"""
