"""The one reader of ONNX files: it reads a file once, checks it and inlines its functions.

A bundle's digests cover its files and nothing else, so a model must hold all that it computes with.
External data would be read from any path that the file names. ONNX Runtime looks for it in the
working folder when it gets bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finedge.errors import BundleError
from finedge.graph.inlining import check_functions, inline
from finedge.graph.sizes import too_large

if TYPE_CHECKING:
    from onnx import ModelProto

FIX = "copy or make the bundle again"


def read_onnx(path: Path) -> bytes:
    """Return the bytes of an ONNX file, checked: a runtime gets the very bytes that were checked.

    Raises:
        BundleError: it cannot be read, is no ONNX model, keeps data outside of itself, or makes
            tensors of impossible size.

    Examples:
        >>> content = read_onnx(Path("birds.finedge/model.fp32.onnx"))
        >>> session = onnxruntime.InferenceSession(content)
    """
    return _checked(path)[0]


def read_model(path: Path) -> ModelProto:
    """Return an ONNX file's model, its functions inlined (`finedge.graph.tags`).

    Raises:
        BundleError: as `read_onnx`, or its functions cannot be inlined.

    Examples:
        >>> model = read_model(Path("birds.finedge/model.fp32.onnx"))
        >>> len(model.functions)
        0
    """
    model = _checked(path)[1]
    try:
        return inline(model)
    except BundleError:
        raise
    except Exception as error:  # onnx's own exceptions share no base class
        raise _damaged(path, error) from error


def outside_data(message: Any) -> Iterator[str]:
    """Yield the names of the tensors anywhere in a protobuf message whose data is not in it.

    Attributes, subgraphs, functions and sparse tensors are searched too. A tensor's own fields are
    not: they are large.
    """
    from onnx import TensorProto

    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            if not isinstance(part, TensorProto):
                yield from outside_data(part)
            elif part.data_location == TensorProto.EXTERNAL or part.external_data:
                yield part.name or "(without a name)"


def _checked(path: Path) -> tuple[bytes, ModelProto]:
    import onnx

    try:
        content = path.read_bytes()
        model = onnx.load_model_from_string(content)
        outside = next(outside_data(model), None)
        check_functions(model)
        large = None if outside else too_large(model)
    except (BundleError, MemoryError):
        raise
    except Exception as error:  # protobuf's, and of text that is no Unicode
        raise _damaged(path, error) from error
    if not model.graph.node:
        raise _damaged(path, "its graph has no nodes")
    if outside is not None:
        raise BundleError(
            f"{path} keeps the tensor '{outside}' in another file, which no digest covers",
            expected="every weight inside the ONNX file",
            fix="save it without external data, and export again",
        )
    if large is not None:
        raise BundleError(
            f"{path} makes a tensor of impossible size: {large}",
            expected="maps of a picture's size",
            fix=FIX,
        )
    return content, model


def _damaged(path: Path, reason: object) -> BundleError:
    return BundleError(
        f"{path} is no ONNX model: {reason}",
        expected="a model as finedge export writes it",
        fix=FIX,
    )
