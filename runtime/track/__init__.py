"""One object, one answer: boxes of one frame after another become tracks.

- `tracker.py`: the tracks of one source; births, occlusions, returns and deaths, all in seconds.
- `cost.py`: how unlikely it is that a box is a track's next one.
- `assign.py`: the assignment with the least cost, exactly.
- `kinematics.py`: where a track is and how fast it moves.
- `colours.py`: the colours of a thing, to know it again.
- `pool.py`: the probabilities of all its frames as one answer, and its best crop.

Everything here is numpy and OpenCV.
"""
