"""What a layer of an engine computes, from its type and its kernel's name.

Three parts of TensorRT write layer types: its kernel classes (CaskConvActPool, CublasConvolution),
its network layers (MatrixMultiply; `trt.LayerType`), and its Myelin compiler (correlation, kgen).
The classes here are those of libnvinfer_lean 11.4 and of NVIDIA's published engines of 8.x. NVIDIA
documents no list. So a type that is in no table is unknown, and the report shows it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

Role = Literal[
    "convolution", "matmul", "softmax", "attention", "plugin", "reformat", "other", "unknown"
]
ARITHMETIC: tuple[Role, ...] = ("convolution", "matmul", "softmax", "attention")

# Parts of a layer type, lower case without "_"; the first match counts.
_TYPES: tuple[tuple[str, Role], ...] = (
    ("correlation", "convolution"),
    ("conv", "convolution"),  # ConvActPool, CaskJitConv, CudaDepthwiseConvolution, deconv
    ("mha", "attention"),
    ("softmax", "softmax"),
    ("attention", "attention"),
    ("gemm", "matmul"),
    ("matrixmultiply", "matmul"),
    ("matmul", "matmul"),
    ("fullyconnected", "matmul"),
    ("einsum", "matmul"),
    ("customlayer", "plugin"),
    ("plugin", "plugin"),
    ("reformat", "reformat"),
    ("quantize", "reformat"),  # also Dequantize and DynamicQuantize, where they run alone
)
# Parts of the types that hold no convolution, matrix product or softmax. Myelin is not one of them:
# TensorRT 8.x writes a single Myelin layer for a whole region of the graph.
_OTHER = re.compile(
    "pool|pointwise|elementwise|activation|unary|scale|select|parametricrelu|lrn|normalization"
    "|shuffle|slice|padding|resize|concat|gather|scatter|gridsample|reversesequence|squeeze"
    "|reduce|topk|cumulative|nms|nonzero|onehot|noop|identity|cast|constant|fill|copy|move|shape"
    "|triplimit|recurrence|iterator|loopoutput|condition|assertion|signal|wait|trainstation"
    "|rotaryembedding|kvcacheupdate|distcollective"
)
# Parts of kernel names, lower case, for types that are in no table. Examples are
# sm80_xmma_fprop_implicit_gemm_..., ampere_scudnn_winograd_... and sm80_xmma_gemm_...
_KERNELS: tuple[tuple[str, Role], ...] = (
    ("fprop", "convolution"),
    ("dgrad", "convolution"),
    ("implicit_gemm", "convolution"),
    ("conv", "convolution"),
    ("cudnn", "convolution"),
    ("winograd", "convolution"),
    ("gemm", "matmul"),
    ("softmax", "softmax"),
)
_MOVES = frozenset({"Tran", "Resh", "Move", "Copy", "Cast"})
_OPERATIONS = re.compile(r"__myl_([A-Za-z]+)_")


def role_of(kind: str, *, name: str, tactic: str) -> Role:
    """Return what a layer does; "unknown" where neither its type nor its kernel tells.

    Args:
        kind: its layer type as TensorRT writes it.
        name: its name.
        tactic: its kernel's name; "" where TensorRT gives none.
    """
    kernel, word = tactic.lower(), kind.lower().replace("_", "")
    if "mha" in kernel:
        return "attention"
    role = _first(_TYPES, word)
    if role:
        return role
    steps = operations_of(name, tactic)
    if steps:
        return _role_of_operations(steps)
    return "other" if _OTHER.search(word) else _first(_KERNELS, kernel) or "unknown"


def operations_of(name: str, tactic: str) -> tuple[str, ...]:
    """Return the steps of a kernel that Myelin generated, e.g. (Cast, Tran, Mul, Add).

    The last is Etc where TensorRT cut the list. Other kernels have none.
    """
    match = _OPERATIONS.search(tactic or name)
    return tuple(re.findall(r"[A-Z][a-z0-9]*", match[1])) if match else ()


def _first(table: tuple[tuple[str, Role], ...], text: str) -> Role | None:
    return next((role for part, role in table if part in text), None)


def _role_of_operations(operations: tuple[str, ...]) -> Role:
    # exp(x - max x); few terms are summed one by one, without a reduction to recognise.
    if ("Sub", "Exp") in pairwise(operations) and "Log" not in operations:
        return "softmax"
    if "Fc" in operations or "Gemm" in operations:
        return "matmul"
    return "reformat" if _MOVES.issuperset(operations) else "other"
