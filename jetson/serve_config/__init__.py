"""What other servers need to run a bundle: a model repository for Triton Inference Server, a configuration for DeepStream's nvinfer."""
