"""TensorRT and TensorRT for RTX: one code path that runs a bundle's engine on the GPU.

`backend` finds or builds the engine of a variant and opens a `session`. A session runs batches on
a `lane`: a CUDA stream with `buffers`, and a `context` and a graph per batch size. `build` makes
engines and stores them; `plugin` holds our attention kernel; `library` and `engine` wrap NVIDIA's
APIs.

The room imports the contract (`finedge.bundle`, `finedge.graph`, ...) and
`finedge.runtime.{backend,model_io,agreement,cuda,machine}`, never torch.
`finedge.runtime.backend.load_backend` opens the two backends by name, and `finedge build` runs
`build.command`. `doctor`, `deploy` and `serve-config` ask about GPUs and stored engines.
"""
