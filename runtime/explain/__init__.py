"""What a bundle's classifier looks at, as pictures over the crop that it saw.

From the model to the page: `graph` reads the ONNX file. `grid` finds where feature maps lie on the
crop. `views` makes panels of `maps`. `explainer` runs all of it on a frame. `overlay` draws a
panel, `strip` a PNG of all panels, `sheet` the page of all images.
"""
