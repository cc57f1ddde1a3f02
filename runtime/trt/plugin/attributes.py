"""The attributes of a node of cross-layer attention, and the plugin fields that hold them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from finedge.errors import UsageError
from finedge.ops import CROSS_LAYER_ATTENTION as OP


@dataclass(frozen=True)
class AttentionAttributes:
    """The node's attributes.

    `scale` multiplies q^T k. `q_scale`, `k_scale`, `v_scale` are the size of one step of that input
    where it is INT8, else 0. `shared`: k and v are one tensor; TensorRT does not tell a plugin that
    and may pass two copies, so `node_attributes.py` writes it.
    """

    scale: float
    q_scale: float = 0.0
    k_scale: float = 0.0
    v_scale: float = 0.0
    shared: int = 0

    def __post_init__(self) -> None:
        if self.shared and self.k_scale != self.v_scale:
            scales = f"k_scale {self.k_scale} and v_scale {self.v_scale}"
            raise UsageError(
                f"one tensor is both key and value, with {scales}", expected="one scale"
            )

    @classmethod
    def of(cls, fields: Any) -> AttentionAttributes:
        """Read a PluginFieldCollection; other fields (`plugin_version`) are ignored.

        Raises:
            UsageError: there is no scale.
        """
        values = {
            f.name: np.asarray(f.data).reshape(-1)[0].item()
            for f in fields
            if f.name in cls.__dataclass_fields__
        }
        if "scale" not in values:
            raise UsageError(
                f"a {OP.name} node has no attribute 'scale'",
                expected="scale = 1/sqrt(d) or what the model was trained with",
            )
        return cls(**values)

    def fields(self, trt: Any) -> list[Any]:
        """Return them as PluginFields.

        A PluginFieldCollection points into these objects and does not keep them alive.
        """
        kinds = {"shared": (np.int32, trt.PluginFieldType.INT32)}
        default = (np.float32, trt.PluginFieldType.FLOAT32)
        fields = []
        for name, value in asdict(self).items():
            dtype, kind = kinds.get(name, default)
            fields.append(trt.PluginField(name, np.array([value], dtype), kind))
        return fields
