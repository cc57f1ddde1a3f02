"""The TensorRT plugin of `finedge::CrossLayerAttention` in Python.

It is an IPluginV3, for TensorRT 10.3 and later and for TensorRT for RTX. A process that builds or
runs an engine with it has to call `register` first. Python only prepares: `enqueue` fills in five
addresses and records one or two launches on the stream.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cache
from typing import Any

import numpy as np

from finedge.errors import UsageError
from finedge.ops import CROSS_LAYER_ATTENTION as OP
from finedge.runtime.cuda.libcuda import LIBRARY
from finedge.runtime.trt.plugin.driver import Driver, parameters_of
from finedge.runtime.trt.plugin.image import image_digest
from finedge.runtime.trt.plugin.launch import (
    COMBINE,
    COMBINE_BLOCK,
    FORMATS,
    HALF,
    INT8,
    AttentionShape,
    Map,
    MapLayout,
    is_readable,
    kernel_for,
    plan,
    workspace_bound,
)

log = logging.getLogger(__name__)

Q, K, V, Y = range(4)
RTX = "tensorrt_rtx"
_registered: dict[str, Any] = {}  # the registry does not keep a creator alive


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


class ReadyAttention:
    """An attention that only lacks the addresses of its maps, and its loaded kernels.

    Args:
        driver: the CUDA driver.
        shape: maps and sizes; `splits` is filled in from the plan of the launch.
        shared: keys and values are one map.

    Raises:
        UsageError: more channels than any kernel has room for.
        SystemProblem: no image fits the device, or it has too little shared memory.
    """

    def __init__(self, driver: Driver, shape: AttentionShape, *, shared: bool) -> None:
        kernels = driver.kernels()
        kernel = kernel_for(d=shape.d, dv=shape.dv, shared=shared)
        self.shape = shape
        launch = self.plan = plan(
            queries=shape.queries,
            keys=shape.keys,
            d=shape.d,
            dv=shape.dv,
            shared=shared,
            batch=shape.batch,
            processors=kernels.processors,
            resident=kernels.resident(kernel),
        )
        shape.splits = launch.splits
        function = kernels.function(launch.kernel, shared_bytes=launch.shared_bytes)
        self._steps = [(function, *launch.grid, *launch.block, launch.shared_bytes)]
        if launch.combine_grid:
            combine = kernels.function(COMBINE, shared_bytes=0)
            self._steps.append((combine, *launch.combine_grid, *COMBINE_BLOCK, 0))
        self._driver, self._parameters = driver, parameters_of(shape)
        log.debug("cross-layer attention: %s", launch)

    def launch(self, addresses: Sequence[int], *, workspace: int, stream: int) -> None:
        """Record the launches on a stream.

        `addresses` are those of q, k, v and y; `workspace` has `plan.workspace_bytes`.
        """
        shape = self.shape
        shape.q.data, shape.k.data, shape.v.data, shape.y.data = addresses
        shape.partial = workspace
        for step in self._steps:
            self._driver.launch(*step, stream=stream, parameters=self._parameters)


class PluginCreator:
    """Makes the plugin from a node's attributes or an engine's fields.

    `register` adds TensorRT's base class.
    """

    trt: Any
    plugin: type[CrossLayerAttentionPlugin]

    def _describe(self) -> None:
        self.name, self.plugin_version, self.plugin_namespace = OP.name, str(OP.version), OP.domain
        self._fields = AttentionAttributes(1.0).fields(self.trt)
        self.field_names = self.trt.PluginFieldCollection(self._fields)

    def create_plugin(self, name: str, fields: Any, phase: Any) -> CrossLayerAttentionPlugin:  # noqa: D102
        return self.plugin(AttentionAttributes.of(fields))


def register(trt: Any, *, library: str = LIBRARY) -> None:
    """Register the plugin in TensorRT; a second call does nothing.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        library: name or path of the CUDA driver; opened when an engine is run, not before.
    """
    registry = trt.get_plugin_registry()
    if registry.get_creator(OP.name, str(OP.version), OP.domain) is None:
        _registered[trt.__name__] = creator(trt, library=library)
        registry.register_creator(_registered[trt.__name__], OP.domain)


def creator(trt: Any, *, library: str = LIBRARY) -> Any:
    """Return the creator that `register` registers."""
    plugin_creator = _creator_class(trt)()
    plugin_creator.plugin = _plugin_class(trt, library)
    return plugin_creator


def _plugin_class(trt: Any, library: str) -> type[CrossLayerAttentionPlugin]:
    bases = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)

    def initialise(self: Any, attributes: AttentionAttributes) -> None:
        for base in bases:
            base.__init__(self)
        CrossLayerAttentionPlugin.__init__(self, attributes)

    return type(
        OP.name,
        (CrossLayerAttentionPlugin, *bases),
        {"__init__": initialise, "trt": trt, "library": library},
    )


def _creator_class(trt: Any) -> Any:
    def initialise(self: Any) -> None:
        trt.IPluginCreatorV3One.__init__(self)
        self._describe()

    return type(
        f"{OP.name}Creator",
        (PluginCreator, trt.IPluginCreatorV3One),
        {"__init__": initialise, "trt": trt},
    )


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
