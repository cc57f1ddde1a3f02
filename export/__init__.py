"""From a training run to a bundle: ONNX files in standard ops, checked against PyTorch.

    to_onnx          the exporter: frames in, logits out, our ops as nodes, taps named
    ops, passes      our operators in ONNX; exact rewrites of the graph
    cost             multiply-accumulates of both forms of attention, and which form is cheaper
    onnx_files       the float files of a bundle
    framed           bundles that take whole frames
    reference        the model in PyTorch, and the frames that it is compared on
    parity           the comparison
    contents         golden outputs, the split and the record of the export
    torch_backend    the run in PyTorch behind the protocol of the devices

`command` is `finedge export`. `calib`, `verify` and tests call the rest. It may import `train`,
`runtime`, the contract, torch, onnx_ir and onnxscript.
"""
