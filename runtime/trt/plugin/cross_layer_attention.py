"""The TensorRT plugin of `finedge::CrossLayerAttention` in Python (IPluginV3, TensorRT 10.0 and later, and TensorRT for RTX).

The process that builds an engine with it, and each that runs one, has to call `register` first. Python only prepares: `enqueue` fills
five addresses in and records one launch, or two, on the given stream.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from finedge.errors import UsageError
from finedge.ops import CROSS_LAYER_ATTENTION as OP
from finedge.runtime.trt.plugin.driver import LIBRARY, Driver, parameters_of
from finedge.runtime.trt.plugin.launch import (
    COMBINE,
    FORMATS,
    HALF,
    INT8,
    Layout,
    Map,
    Problem,
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
class Settings:
    """The node's attributes.

    `scale` multiplies q^T k. `q_scale`, `k_scale`, `v_scale`: what one step of that input is worth where it is INT8, else 0.
    `shared`: k and v are one tensor. TensorRT does not tell a plugin, and may hand it two copies; `node_attributes.py` says so.
    """

    scale: float
    q_scale: float = 0.0
    k_scale: float = 0.0
    v_scale: float = 0.0
    shared: int = 0

    def __post_init__(self) -> None:
        if self.shared and self.k_scale != self.v_scale:
            raise UsageError(
                f"one tensor is both key and value, with k_scale {self.k_scale} and v_scale {self.v_scale}",
                expected="one scale",
            )

    @classmethod
    def of(cls, fields: Any) -> Settings:
        """Read a PluginFieldCollection; other fields (`plugin_version`) are left alone.

        Raises:
            UsageError: there is no scale.
        """
        given = {
            f.name: np.asarray(f.data).reshape(-1)[0].item()
            for f in fields
            if f.name in cls.__dataclass_fields__
        }
        if "scale" not in given:
            raise UsageError(
                f"a {OP.name} node has no attribute 'scale'",
                expected="scale = 1/sqrt(d) or what the model was trained with",
            )
        return cls(**given)

    def fields(self, trt: Any) -> list[Any]:
        """Return them as PluginFields; a PluginFieldCollection of them points into these objects and does not keep them alive."""
        kinds = {"shared": (np.int32, trt.PluginFieldType.INT32)}
        default = (np.float32, trt.PluginFieldType.FLOAT32)
        found = [(name, value, *kinds.get(name, default)) for name, value in asdict(self).items()]
        return [
            trt.PluginField(name, np.array([value], dtype), kind)
            for name, value, dtype, kind in found
        ]


class Attention:
    """What the plugin does, without TensorRT's base classes; `register` adds those of the module at hand."""

    trt: Any
    library: str

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.plugin_name, self.plugin_version, self.plugin_namespace = (
            OP.name,
            str(OP.version),
            OP.domain,
        )
        self.num_outputs = 1
        self._fields: list[Any] = []
        self._ready: Ready | None = None

    def get_capability_interface(self, type: Any) -> Any:  # noqa: D102 - TensorRT's names from here on
        return self

    def clone(self) -> Any:  # noqa: D102
        return self.__class__(self.settings)

    def attach_to_context(self, resource_context: Any) -> Any:  # noqa: D102
        return self.clone()

    def get_fields_to_serialize(self) -> Any:  # noqa: D102
        self._fields = self.settings.fields(self.trt)
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
        """Each map in a format of its own: FP16 anywhere, INT8 where an input has a scale."""
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
        # TensorRT times every combination. TensorRT for RTX does not: offered several it mixes them, with a transposition in front of most
        # (measured), so it is offered one. Its convolutions leave HWC, which then costs none.
        return desc.format.name in (forms[:1] if self.trt.__name__ == RTX else forms)

    def configure_plugin(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Refuse at build time what no kernel holds."""
        d, dv = (_size(inputs[i].desc.dims)[0] for i in (Q, V))
        kernel_for(d=d, dv=dv, shared=bool(self.settings.shared))

    def get_workspace_size(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
        """Return the bytes for every shape up to the largest, on every GPU."""
        (_, queries), (_, keys), (dv, _) = (_size(t.max) for t in inputs)
        return workspace_bound(queries=queries, keys=keys, dv=dv, batch=inputs[Q].max[0])

    def on_shape_change(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Plan for these shapes and formats and load the image; the binding turns what this raises into a failed call."""
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
        """Record the launches; raises where the driver refuses, since TensorRT's binding ignores what this returns."""
        self._ready = self._ready or self._prepare(input_desc, output_desc)
        self._ready.launch((*inputs, *outputs), workspace=workspace, stream=stream)

    def _scale(self, position: int) -> float:
        return (self.settings.q_scale, self.settings.k_scale, self.settings.v_scale, 0.0)[position]

    def _prepare(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Ready:
        descs = [*inputs, *outputs]
        return Ready(_driver(self.library), self._problem(descs), shared=bool(self.settings.shared))

    def _problem(self, descs: Sequence[Any]) -> Problem:
        sizes = [_size(d.dims) for d in descs]
        maps = [self._map(position, desc) for position, desc in enumerate(descs)]
        (d, queries), (_, keys), (dv, _) = sizes[:3]
        return Problem(
            *maps, None, queries, keys, d, dv, 1, descs[Q].dims[0], self.settings.scale, 0
        )

    def _map(self, position: int, desc: Any) -> Map:
        channels, positions = _size(desc.dims)
        kind = INT8 if desc.type == self.trt.DataType.INT8 else HALF
        return Layout.of(desc.format.name, kind=kind, channels=channels, positions=positions).map(
            scale=self._scale(position)
        )


class Ready:
    """A problem all of whose numbers are known but the addresses, and the loaded kernels that solve it.

    Args:
        driver: the CUDA driver.
        problem: `splits` is filled in by the `plan` made here.
        shared: keys and values are one map.

    Raises:
        UsageError: no kernel holds that many channels.
        SystemProblem: no image fits the device, or it has too little shared memory.
    """

    def __init__(self, driver: Driver, problem: Problem, *, shared: bool) -> None:
        kernels = driver.kernels()
        p = self.problem = problem
        launch = self.plan = plan(
            queries=p.queries,
            keys=p.keys,
            d=p.d,
            dv=p.dv,
            shared=shared,
            batch=p.batch,
            processors=kernels.processors,
        )
        p.splits = launch.splits
        function = kernels.function(launch.kernel, shared_bytes=launch.shared_bytes)
        self._steps = [(function, *launch.grid, *launch.block, launch.shared_bytes)]
        if launch.combine_grid:
            self._steps.append(
                (kernels.function(COMBINE, shared_bytes=0), *launch.combine_grid, *launch.block, 0)
            )
        self._driver, self._parameters = driver, parameters_of(problem)
        log.debug("cross-layer attention: %s", launch)

    def launch(self, addresses: Sequence[int], *, workspace: int, stream: int) -> None:
        """Record the launches on a stream; `addresses` are those of q, k, v and y, `workspace` holds `plan.workspace_bytes`."""
        p = self.problem
        p.q.data, p.k.data, p.v.data, p.y.data = addresses
        p.partial = workspace
        for step in self._steps:
            self._driver.launch(*step, stream=stream, parameters=self._parameters)


class Creator:
    """What makes the plugin from a node's attributes or an engine's fields; `register` adds TensorRT's base class."""

    trt: Any
    plugin: type[Attention]

    def _describe(self) -> None:
        self.name, self.plugin_version, self.plugin_namespace = OP.name, str(OP.version), OP.domain
        self._fields = Settings(1.0).fields(self.trt)
        self.field_names = self.trt.PluginFieldCollection(self._fields)

    def create_plugin(self, name: str, fields: Any, phase: Any) -> Attention:  # noqa: D102
        return self.plugin(Settings.of(fields))


def register(trt: Any, *, library: str = LIBRARY) -> None:
    """Make the plugin known to TensorRT; the second call does nothing.

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
    made = _creator_class(trt)()
    made.plugin = _plugin_class(trt, library)
    return made


def _plugin_class(trt: Any, library: str) -> type[Attention]:
    bases = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)

    def initialise(self: Any, settings: Settings) -> None:
        for base in bases:
            base.__init__(self)
        Attention.__init__(self, settings)

    return type(
        OP.name, (Attention, *bases), {"__init__": initialise, "trt": trt, "library": library}
    )


def _creator_class(trt: Any) -> Any:
    def initialise(self: Any) -> None:
        trt.IPluginCreatorV3One.__init__(self)
        self._describe()

    return type(
        f"{OP.name}Creator",
        (Creator, trt.IPluginCreatorV3One),
        {"__init__": initialise, "trt": trt},
    )


@cache
def _driver(library: str) -> Driver:
    return Driver(library)


def _size(shape: Any) -> tuple[int, int]:
    """Return channels and positions of a shape [B, C, H, W]."""
    return shape[1], shape[2] * shape[3]
