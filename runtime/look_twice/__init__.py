"""A second look: the part of the frame at the peak of a map is classified again.

The first pass shows where the network looks (`finedge.runtime.explain`). A square around the peak
is cut out of the frame at full resolution, resized to the network's input and classified by the
same network. The answer is the mean of both scores. Nothing is trained for it.

Published relatives. WS-DAN (See Better Before Looking Closer, arXiv 1901.09891) is the closest: its
"object localization and refinement" crops what an attention map covers, classifies it again with
the same network, and averages both predictions. RA-CNN (Fu et al., CVPR 2017) and NTS-Net (Yang et
al., ECCV 2018) train a network that proposes the crop. WS-DAN also trains on such crops; bundles of
this project did not.

Measured at 160 px on two data sets (`benchmarks/look_twice.py`): 0.9 to 2.1 points of top-1, for
twice the CPU time. The middle of the first crop, as large and without any map, gains 0.8 to 2.0.

- `options.py`: size of the crop, and the map that places it.
- `window.py`: where the crop lies on the frame.
- `second_look.py`: from the outputs of the first pass to the input of the second.
- `open.py`: a session whose outputs show the map, or what the bundle lacks for it.
"""
