"""TensorRT engines of a bundle: built, stored beside it, and never used when stale.

`command` is `finedge build`. It calls `builder`, which works in four steps. `spec` lists the ways
to build (from `options`, `graph`, `attention`, `memory` and `key`). `compiler` builds each of them.
`layers` reads the layers of the result, and `expect` checks them. `store` keeps the engine with a
`seal`.

The room imports the contract, `finedge.graph`, `finedge.runtime.trt.{library,cuda,plugin}`, and
nothing that opens a session: the caller passes the timer. `finedge.runtime.trt.backend`, `deploy`
and `serve-config` call it.
"""
