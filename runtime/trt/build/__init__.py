"""TensorRT engines of a bundle: built, stored beside it, and never used when stale.

`command` is `finedge build`. It calls `builder`, which asks `spec` for the ways to build
(`options`, `graph`, `attention`, `memory`, `key`), has `compiler` build each, reads the `layers`
of the result, checks them (`expect`) and keeps the engine in the `store` with a `seal`.

The room imports the contract, `finedge.graph`, `finedge.runtime.trt.{library,cuda,plugin}`, and
nothing that opens a session: the caller passes the timer. `finedge.runtime.trt.backend`, `deploy`
and `serve-config` call it.
"""
