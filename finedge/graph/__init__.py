"""ONNX graphs: read them, walk them and rewrite them.

Any room may import this one: `export` and `calib` write files with it, `runtime` reads files with
it. It imports the contract only (`errors`, `ops`, `spec`, `bundle` of finedge), ONNX and numpy. It
imports no torch and no runtime.

    onnx_file           the one reader of ONNX files, with the checks of `sizes`
    walk                producers, consumers, what lies before and after a layer
    edit                copies, unique names, unread initializers
    constants           constants of a graph, and constant folding of a function's body
    patterns            layers, gates, mask convolutions, the Cast and Transpose of the frames
    attention           `AttentionNode`: the one way to find our attention nodes
    inlining, folding   functions to tagged standard nodes (`tags`), and back to one node
    float16             float32 to float16; `keep_float32` says what cannot follow
    float16_islands     the same between the INT8 parts of a Q/DQ file
    reduce_range        INT8 weights that fit sums of 16 bits, for CPUs without VNNI
    pair_sums           its arithmetic: rows of weights whose neighbours fit
    channel_order       an order of channels in which more neighbours fit
    segments, macs      a graph cut after some outputs; multiply-accumulates of its products
    taps, metadata      feature maps as outputs; labels and preprocessing in the file
"""
