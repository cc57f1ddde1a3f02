"""What other servers need to run a bundle.

For Triton Inference Server that is a model repository, for DeepStream a configuration of nvinfer.
"""
