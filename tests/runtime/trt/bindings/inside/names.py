"""Every name, signature and enum of TensorRT that our code uses exists in these bindings."""

from __future__ import annotations

import shutil
from pathlib import Path

import tensorrt as trt

import finedge.runtime.trt
from finedge.runtime.trt.build.compiler import WEAK_FLAGS
from finedge.runtime.trt.library import STRONG_SINCE, numbers
from finedge.runtime.trt.plugin import cross_layer_attention as plugin
from finedge.runtime.trt.plugin.launch import FORMATS
from tests.runtime.trt.bindings.inside.collector import uses

CODE = Path(finedge.runtime.trt.__file__).parent
PLUGIN = "plugin/cross_layer_attention.py"
IS_RTX = 'hasattr(engine.trt, "CudaGraphStrategy")'
HAS_TARGETS = 'getattr(library.trt, "ComputeCapability", None)'
# Names that a version lacks -> the condition in our code that keeps them from being reached there.
GUARDED = {
    "trt.CudaGraphStrategy": IS_RTX,
    "trt.DynamicShapesKernelSpecializationStrategy": IS_RTX,
    "trt.ICudaEngine.create_runtime_config": IS_RTX,
    "trt.IRuntimeConfig.cuda_graph_strategy": IS_RTX,
    "trt.IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy": IS_RTX,
    "trt.ComputeCapability": HAS_TARGETS,
    "trt.IBuilderConfig.num_compute_capabilities": HAS_TARGETS,
    "trt.IBuilderConfig.set_compute_capability": HAS_TARGETS,
    "trt.Runtime.get_engine_validity": 'hasattr(runtime, "get_engine_validity")',
}
# What the bindings answer themselves where a plugin does not.
OPTIONAL = {
    "DEFAULT_FORMAT_COMBINATION_LIMIT",
    "api_language",
    "destroy",
    "format_combination_limit",
    "get_aliased_input",
    "get_valid_tactics",
    "interface_info",
    "metadata_string",
    "timing_cache_id",
}


# Properties of the bindings, which our constructor sets.
ASSIGNED = {"num_outputs", "plugin_name", "plugin_namespace", "plugin_version"}


def problems(folder):
    """Return what the bindings lack for the code in a folder, by name."""
    return {str(use): use.problem() for use in uses(folder) if use.problem()}


def source():
    return "\n".join(path.read_text() for path in CODE.rglob("*.py"))


def test_all_that_our_code_uses_exists_or_is_guarded():
    unguarded = {name: text for name, text in problems(CODE).items() if name not in GUARDED}
    assert not unguarded, "\n".join(unguarded.values())


def test_each_guard_is_in_our_code():
    text = source()
    assert [guard for guard in GUARDED.values() if guard not in text] == []


def test_the_collector_finds_every_room_of_the_code():
    names = {str(use) for use in uses(CODE)}
    assert len(names) > 100
    assert {
        "trt.Builder.build_serialized_network",
        "trt.BuilderFlag.TF32",
        "trt.ICudaEngine.create_execution_context",
        "trt.IExecutionContext.execute_async_v3",
        "trt.IProgressMonitor.step_complete",
        "trt.OnnxParser.supports_model_v2",
        "trt.ParserError.node_operator",
        "trt.PluginField.data",
        "trt.PluginTensorDesc.format",
        "trt.TensorIOMode.INPUT",
    } <= names


# A file of ours, a text in it, and the text that replaces it in a copy; the name that is then
# reported as missing.
MADE_UP = (
    ("build/compiler.py", "trt.BuilderFlag.TF32", "trt.BuilderFlag.TF33", "BuilderFlag.TF33"),
    ("build/compiler.py", "ignore_mismatch=False", "ignore=False", "set_timing_cache"),
    ("build/compiler.py", "config.profiling_verbosity", "config.verbosity", "verbosity"),
    ("build/compiler.py", "memory_pool_limit(", "memory_pool_limit(1, ", "set_memory_pool_limit"),
    ("build/support.py", "error.node_name()", "error.node_named()", "ParserError.node_named"),
    ("build/progress.py", "def step_complete", "def step_completed", "step_completed"),
    ("engine.py", "trt.TensorIOMode.INPUT", "trt.TensorMode.INPUT", "trt.TensorMode"),
    ("engine.py", "handle.num_io_tensors", "handle.num_tensors", "ICudaEngine.num_tensors"),
    ("lane.py", ".infer_shapes()", ".infer_all_shapes()", "IExecutionContext.infer_all_shapes"),
    (PLUGIN, "desc.format.name", "desc.form.name", "PluginTensorDesc.form"),
    (PLUGIN, "inputs[Q].max[0]", "inputs[Q].maximum[0]", "DynamicPluginTensorDesc.maximum"),
    ("plugin/attributes.py", "np.asarray(f.data)", "np.asarray(f.values)", "PluginField.values"),
    (PLUGIN, "def set_tactic(", "def choose_tactic(", "choose_tactic"),
)


def test_made_up_names_are_caught(tmp_path):
    """The test of the test, in a copy of the code."""
    copy = shutil.copytree(CODE, tmp_path / "trt", ignore=shutil.ignore_patterns("images", "*.cu"))
    for file, before, after, _ in MADE_UP:
        text = (copy / file).read_text()
        assert before in text, "the example is out of date"
        (copy / file).write_text(text.replace(before, after))
    caught = problems(copy)
    assert [name for *_, name in MADE_UP if not any(key.endswith(name) for key in caught)] == []


def test_names_in_tables_exist():
    """Flags and formats are looked up by name."""
    flags = {flag for names in WEAK_FLAGS.values() for flag in names}
    if numbers(trt.__version__) < STRONG_SINCE:
        assert flags <= set(trt.BuilderFlag.__members__)
    assert {form for form, _ in FORMATS} <= set(trt.TensorFormat.__members__)


def test_the_plugin_has_every_member_without_a_default():
    """A missing one is only noticed when TensorRT calls it.

    No object is made here: the bindings of 10.3 crash where Python, not TensorRT, deletes a plugin.
    """
    bases = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)
    members = {name for base in bases for name in vars(base) if not name.startswith("_")}
    own = {*vars(plugin.CrossLayerAttentionPlugin), *ASSIGNED}
    assert members - own <= OPTIONAL
