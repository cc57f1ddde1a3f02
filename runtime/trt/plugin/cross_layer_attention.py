"""The TensorRT plugin of `finedge::CrossLayerAttention` in Python, as TensorRT calls it.

It is an IPluginV3, for TensorRT 10.3 and later and for TensorRT for RTX. Python only prepares:
`enqueue` fills in five addresses and records one or two launches on the stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple
from functools import cache
from typing import Any

from finedge.ops import CROSS_LAYER_ATTENTION as OP
from finedge.runtime.trt.plugin.attributes import AttentionAttributes
from finedge.runtime.trt.plugin.driver import Driver
from finedge.runtime.trt.plugin.image import image_digest
from finedge.runtime.trt.plugin.launch import (
    FORMATS,
    HALF,
    INT8,
    AttentionShape,
    Map,
    MapLayout,
    is_readable,
    kernel_for,
    workspace_bound,
)
from finedge.runtime.trt.plugin.ready_attention import ReadyAttention

Q, K, V, Y = range(4)
RTX = "tensorrt_rtx"


class CrossLayerAttentionPlugin:
    """The plugin without TensorRT's base classes; `register` adds those of the loaded module."""

    trt: Any
    library: str

    def __init__(self, attributes: AttentionAttributes) -> None:
        self.attributes = attributes
        self.plugin_name, self.plugin_version, self.plugin_namespace = (
            OP.name,
            str(OP.version),
            OP.domain,
        )
        self.num_outputs = 1
        # Without it TensorRT times the plugin again in every build. It adds shapes and formats.
        self.timing_cache_id = _timing_cache_id(attributes)
        self._fields: list[Any] = []
        self._ready: ReadyAttention | None = None

    def get_capability_interface(self, type: Any) -> Any:  # noqa: D102 - TensorRT's names from here on
        return self

    def clone(self) -> Any:  # noqa: D102
        return self.__class__(self.attributes)

    def attach_to_context(self, resource_context: Any) -> Any:  # noqa: D102
        return self.clone()

    def get_fields_to_serialize(self) -> Any:  # noqa: D102
        self._fields = self.attributes.fields(self.trt)
        return self.trt.PluginFieldCollection(self._fields)

    def get_output_data_types(self, input_types: Sequence[Any]) -> list[Any]:  # noqa: D102
        return [self.trt.DataType.HALF]

    def get_output_shapes(
        self, inputs: Sequence[Any], shape_inputs: Sequence[Any], builder: Any
    ) -> list[Any]:
        """[B, dv, Hq, Wq]."""
        shape = self.trt.DimsExprs(4)
        shape[0], shape[1], shape[2], shape[3] = (
            inputs[Q][0],
            inputs[V][1],
            inputs[Q][2],
            inputs[Q][3],
        )
        return [shape]

    def supports_format_combination(
        self, position: int, tensors: Sequence[Any], inputs: int
    ) -> bool:
        """FP16 anywhere, INT8 where an input has a scale; values in the keys' format.

        TensorRT times every combination that is accepted, at most 100, through Python. With values
        in a format of their own there are 81 for FP16. Keys and values come from one map, or from
        two convolutions of one map, so they are written in one format: that leaves 27. Where the
        keys' type is another, or their format is none that the values can have, values are free.
        """
        desc = tensors[position].desc
        kind = {self.trt.DataType.HALF: HALF, self.trt.DataType.INT8: INT8}.get(desc.type)
        if kind is None or (kind == INT8 and not self._scale(position)):
            return False
        channels, positions = _size(desc.dims)
        forms = [
            form
            for form, its_kind in FORMATS
            if its_kind == kind
            and is_readable(form, kind=kind, channels=channels, positions=positions)
        ]
        # TensorRT for RTX times none: when it is offered several it mixes them, with a
        # transposition before most (measured), so it is offered one. Its convolutions write HWC,
        # which then needs no transposition.
        if self.trt.__name__ == RTX:
            forms = forms[:1]
        keys = tensors[K].desc
        if position == V and keys.type == desc.type and keys.format.name in forms:
            forms = [keys.format.name]
        return desc.format.name in forms

    def configure_plugin(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Refuse at build time sizes that are too large for every kernel."""
        d, dv = (_size(inputs[i].desc.dims)[0] for i in (Q, V))
        kernel_for(d=d, dv=dv, shared=bool(self.attributes.shared))

    def get_workspace_size(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
        """Return the bytes for every shape up to the largest, on every GPU."""
        (d, queries), (_, keys), (dv, _) = (_size(t.max) for t in inputs)
        shared, batch = bool(self.attributes.shared), inputs[Q].max[0]
        return workspace_bound(queries=queries, keys=keys, d=d, dv=dv, shared=shared, batch=batch)

    def set_tactic(self, tactic: int) -> None:
        """Do nothing: there is one tactic, number 0.

        TensorRT calls it all the same. Its binding has no default, and a failed call ends the
        build.
        """

    def on_shape_change(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Plan for these shapes and formats and load the image.

        TensorRT's binding turns an exception into a failed call.
        """
        self._ready = self._prepare(inputs, outputs)

    def enqueue(
        self,
        input_desc: Sequence[Any],
        output_desc: Sequence[Any],
        inputs: Sequence[int],
        outputs: Sequence[int],
        workspace: int,
        stream: int,
    ) -> None:
        """Record the launches.

        Raises where the driver refuses, because TensorRT's binding ignores the return value.
        """
        self._ready = self._ready or self._prepare(input_desc, output_desc)
        self._ready.launch((*inputs, *outputs), workspace=workspace, stream=stream)

    def _scale(self, position: int) -> float:
        return (self.attributes.q_scale, self.attributes.k_scale, self.attributes.v_scale, 0.0)[
            position
        ]

    def _prepare(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> ReadyAttention:
        shape, shared = self._shape([*inputs, *outputs]), bool(self.attributes.shared)
        return ReadyAttention(_driver(self.library), shape, shared=shared)

    def _shape(self, descs: Sequence[Any]) -> AttentionShape:
        sizes = [_size(d.dims) for d in descs]
        maps = [self._map(position, desc) for position, desc in enumerate(descs)]
        (d, queries), (_, keys), (dv, _) = sizes[:3]
        batch, scale = descs[Q].dims[0], self.attributes.scale
        return AttentionShape(*maps, None, queries, keys, d, dv, 1, batch, scale, 0)

    def _map(self, position: int, desc: Any) -> Map:
        channels, positions = _size(desc.dims)
        kind = INT8 if desc.type == self.trt.DataType.INT8 else HALF
        layout = MapLayout.of(desc.format.name, kind=kind, channels=channels, positions=positions)
        return layout.map(scale=self._scale(position))


@cache
def _timing_cache_id(attributes: AttentionAttributes) -> str:
    """Return a digest of all that a plugin's speed depends on, beside shapes and formats."""
    text = f"{image_digest()} {astuple(attributes)}"
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _driver(library: str) -> Driver:
    return Driver(library)


def _size(shape: Any) -> tuple[int, int]:
    """Return channels and positions of a shape [B, C, H, W]."""
    return shape[1], shape[2] * shape[3]
