"""One object, one answer: boxes of one frame after another become tracks.

- `tracker.py`: the tracks of one source; births, returns and deaths, all in seconds.
- `track.py`: a track, a box with its looks, a match of both, and the times of a track.
- `trails.py`: boxes that follow one another without a doubt.
- `contacts.py`: several things in one box.
- `identify.py`: which track a trail is.
- `looks.py`: how little two things look alike, and what is remembered of one.
- `cost.py`: how unlikely it is that a box is the next one of a trail.
- `assign.py`: the assignment with the least cost, exactly.
- `kinematics.py`: where a thing is and how fast it moves.
- `colours.py`: the colours of a thing, to know it again.
- `pool.py`: the probabilities of all its frames as one answer, and its best crop.

Everything here is numpy and OpenCV.
"""
