"""What TensorRT's parser cannot take, with the ONNX name of each node and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from finedge.errors import FinedgeError
from finedge.ops import OPS
from finedge.runtime.trt.build.log import collected, logger, without_noise
from finedge.runtime.trt.library import TrtLibrary

if TYPE_CHECKING:
    import onnx

# A part of the parser's message -> what to do.
ADVICE = (
    ("Failed to convert ONNX date type", "TensorRT has no such data type: export without it"),
    (
        "must have same input types",
        "the file mixes types where it must not: make it again (finedge export, finedge calibrate)",
    ),
    (
        "zero point",
        "TensorRT takes symmetric INT8 only (zero point 0): calibrate again with finedge calibrate",
    ),
    (
        "has type Int32 but must have type FP8",
        "TensorRT takes float biases only: calibrate again with finedge calibrate",
    ),
)
ELSE = "export without this op, or run this bundle with --backend onnxruntime"


@dataclass(frozen=True)
class Unsupported:
    """A node the parser refuses; `index` is -1 and `op` empty where an input of the graph is refused."""

    index: int
    name: str
    op: str
    why: str
    fix: str

    def describe(self) -> str:
        """Return one line."""
        where = f"node #{self.index} '{self.name}' ({self.op})" if self.op else f"'{self.name}'"
        return f"{where}: {self.why}; {self.fix}"


def unsupported(model: onnx.ModelProto, *, library: TrtLibrary) -> tuple[Unsupported, ...]:
    """Return every node of a prepared model that cannot be parsed; a full parse, nothing is built."""
    trt = library.trt
    with collected(trt):
        builder = trt.Builder(
            logger(trt)
        )  # builder and network are named: the parser does not keep them alive
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger(trt))
        if parser.supports_model_v2(model.SerializeToString()):
            return ()
        return parser_errors(parser, model)


def parser_errors(parser: Any, model: onnx.ModelProto) -> tuple[Unsupported, ...]:
    """Return what a parser found wrong with a model, one entry a node."""
    errors = (parser.get_error(i) for i in range(parser.num_errors))
    found = {
        (e.node(), e.node_name()): _unsupported(e, model) for e in errors if without_noise(e.desc())
    }
    return tuple(found.values())


def refusal(
    found: tuple[Unsupported, ...],
    *,
    file: str,
    library: TrtLibrary,
    result: dict[str, Any] | None = None,
) -> FinedgeError:
    """Return the error that lists every unsupported node."""
    lines = "".join(f"\n    {u.describe()}" for u in found) or " (its parser gave no reason)"
    return FinedgeError(
        f"{library.name} {library.version} cannot take {file}:{lines}", result=result
    )


def to_json(found: tuple[Unsupported, ...]) -> list[dict[str, Any]]:
    """Return plain data."""
    return [asdict(u) for u in found]


def _unsupported(error: Any, model: onnx.ModelProto) -> Unsupported:
    index, why = int(error.node()), without_noise(error.desc())
    if index < 0 or index >= len(model.graph.node):
        name = error.node_name() or str(
            error.file()
        )  # for a graph input the parser puts its name where source files stand
        return Unsupported(-1, name, error.node_operator(), why, _advice(why, ""))
    node = model.graph.node[index]
    op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    stack = (
        " in " + " > ".join(error.local_function_stack()) if error.local_function_stack() else ""
    )
    why = (
        f"no importer and no plugin '{node.op_type}' version '1' in namespaces '' or '{node.domain}'"
        if "Plugin not found" in why
        else why
    )
    why = f"no importer for {op}" if why == "false" else why
    return Unsupported(
        index, (error.node_name() or node.name) + stack, op, why, _advice(why, node.op_type)
    )


def _advice(why: str, op: str) -> str:
    if op in OPS:
        return "build with --attention decomposed, which needs no plugin"
    return next((fix for text, fix in ADVICE if text in why), ELSE)
