"""Registers the plugin in TensorRT: its classes with TensorRT's bases, and their creator.

A process that builds or runs an engine with the plugin has to call `register` first.
"""

from __future__ import annotations

from typing import Any

from finedge.ops import CROSS_LAYER_ATTENTION as OP
from finedge.runtime.cuda.libcuda import LIBRARY
from finedge.runtime.trt.plugin.attributes import AttentionAttributes
from finedge.runtime.trt.plugin.cross_layer_attention import CrossLayerAttentionPlugin

_registered: dict[str, Any] = {}  # the registry does not keep a creator alive


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
