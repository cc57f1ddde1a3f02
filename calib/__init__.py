"""What a bundle learns from images after the export: INT8 files, and how sure its answers are.

Things that share nothing but the word calibration:

    INT8 calibration         `calibration_set` picks training images, `observe` runs the float model
                             over them, `collectors` choose the ranges of a `calibration_table`;
                             `tensorrt` and `onnxruntime` insert Q/DQ nodes (`quantization`);
                             `int8_files` makes the files of a bundle
    layers in float          `sensitivity` ranks the layers, `search` picks those that stay in float
                             (`units`, `damage`, `float_layers`)
    confidence calibration   `held_out` picks validation images; `confidence` fits a temperature and
                             a rejection threshold on their scores

`command` is `finedge calibrate`, `sensitivity.command` is `finedge sensitivity`; nothing else calls
this room. It may import `export`, `runtime`, the contract, onnx_ir and ONNX Runtime.
"""
