"""python build_engine.py MODEL: parse and build with the plugin registered. Not a test: run by one.

Prints {"parsed", "errors", "built", "layers"} and leaves the engine beside the model.
"""

import json
import sys
from pathlib import Path

import tensorrt_rtx as trt

from finedge.runtime.trt.plugin.register import register


class Log(trt.ILogger):
    def __init__(self):
        super().__init__()
        self.layers = []

    def log(self, severity, message):
        if message.startswith("Layers:"):
            self.layers = [line for line in message.splitlines() if "LayerType" in line]
        elif severity <= trt.ILogger.WARNING and "Cuda" not in message:  # it misses the driver
            print(message, file=sys.stderr)


def main():
    register(trt)
    register(trt)  # the second does nothing
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    parsed = parser.parse(Path(sys.argv[1]).read_bytes())
    errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
    engine = (
        builder.build_serialized_network(network, configuration(builder, network))
        if parsed
        else None
    )
    if engine:
        Path(sys.argv[1]).with_suffix(".engine").write_bytes(engine)
    print(
        json.dumps(
            {"parsed": parsed, "errors": errors, "built": engine is not None, "layers": log.layers}
        )
    )


def configuration(builder, network):
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        _, *rest = network.get_input(i).shape
        profile.set_shape(network.get_input(i).name, (1, *rest), (2, *rest), (8, *rest))
    config.add_optimization_profile(profile)
    return config


main()
