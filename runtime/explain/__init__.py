"""What a bundle's classifier looks at, as pictures over the crop that it saw.

From the model to the page: `graph` reads the ONNX file. `grid` finds where feature maps lie on the
crop. `views` makes panels of `maps`. `open` finds the views of a bundle, for `explainer`, which
runs all of it on a frame, and for `finedge.runtime.look_twice`. `overlay` draws a panel, `strip` a
PNG of all panels, `sheet` the page of all images.
"""
