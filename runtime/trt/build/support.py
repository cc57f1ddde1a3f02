"""The nodes that TensorRT's parser refuses: ONNX name, reason, and what to do about each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from finedge.errors import FinedgeError
from finedge.ops import OPS
from finedge.runtime.trt.factory import create
from finedge.runtime.trt.library import TrtLibrary
from finedge.runtime.trt.log import collected, without_noise

if TYPE_CHECKING:
    import onnx

# A part of the parser's message -> what to do about it.
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
DEFAULT_ADVICE = "export without this op, or run this bundle with --backend onnxruntime"


@dataclass(frozen=True)
class Unsupported:
    """A node that the parser refuses.

    `index` is its place in the graph. For a refused graph input it is -1 and `op` is empty.
    """

    index: int
    name: str
    op: str
    why: str
    fix: str

    def describe(self) -> str:
        """Return one line."""
        node = f"node #{self.index} '{self.name}' ({self.op})" if self.op else f"'{self.name}'"
        return f"{node}: {self.why}; {self.fix}"


def unsupported(model: onnx.ModelProto, *, library: TrtLibrary) -> tuple[Unsupported, ...]:
    """Return every node of a prepared model that the parser refuses; nothing is built.

    Raises:
        SystemProblem: the library does not start here.
    """
    trt = library.trt
    with collected(trt):
        # Builder and network have names because the parser does not keep them alive.
        builder = create(trt.Builder, trt=trt)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = create(trt.OnnxParser, network, trt=trt)
        if parser.supports_model_v2(model.SerializeToString()):
            return ()
        return parser_errors(parser, model)


def parser_errors(parser: Any, model: onnx.ModelProto) -> tuple[Unsupported, ...]:
    """Return what a parser reports about a model, one entry per node."""
    errors = (parser.get_error(i) for i in range(parser.num_errors))
    nodes = {
        (error.node(), error.node_name()): _unsupported(error, model)
        for error in errors
        if without_noise(error.desc())
    }
    return tuple(nodes.values())


def refusal(
    nodes: tuple[Unsupported, ...],
    *,
    file: str,
    library: TrtLibrary,
    result: dict[str, Any] | None = None,
) -> FinedgeError:
    """Return the error that lists every unsupported node."""
    lines = "".join(f"\n    {node.describe()}" for node in nodes)
    problem = f"{library.name} {library.version} cannot take {file}:"
    return FinedgeError(problem + (lines or " (its parser gave no reason)"), result=result)


def to_json(nodes: tuple[Unsupported, ...]) -> list[dict[str, Any]]:
    """Return plain data."""
    return [asdict(node) for node in nodes]


def _unsupported(error: Any, model: onnx.ModelProto) -> Unsupported:
    index, message = int(error.node()), without_noise(error.desc())
    if not 0 <= index < len(model.graph.node):
        # For a graph input the parser puts its name where source files stand.
        name = error.node_name() or str(error.file())
        return Unsupported(-1, name, error.node_operator(), message, _advice(message, ""))
    node = model.graph.node[index]
    functions = error.local_function_stack()
    path = f" in {' > '.join(functions)}" if functions else ""
    reason = _reason(message, node)
    name = (error.node_name() or node.name) + path
    return Unsupported(index, name, _op(node), reason, _advice(reason, node.op_type))


def _op(node: onnx.NodeProto) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _reason(message: str, node: onnx.NodeProto) -> str:
    """Return the parser's message, in words where it only says `false` or `Plugin not found`."""
    if "Plugin not found" in message:
        name, domain = node.op_type, node.domain
        return f"no importer and no plugin '{name}' version '1' in namespaces '' or '{domain}'"
    return f"no importer for {_op(node)}" if message == "false" else message


def _advice(reason: str, op: str) -> str:
    if op in OPS:
        return "build with --attention decomposed, which needs no plugin"
    return next((fix for text, fix in ADVICE if text in reason), DEFAULT_ADVICE)
