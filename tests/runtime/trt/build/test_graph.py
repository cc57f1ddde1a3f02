import onnx
import onnxruntime
import pytest

from finedge.bundle import FLOAT_FILE, PORTABLE_FILE, Tap
from finedge.errors import BundleError, UsageError
from finedge.graph.edit import with_unique_names
from finedge.graph.float16 import convert_float16
from finedge.graph.inlining import inline
from finedge.graph.keep_float32 import keep_float32
from finedge.graph.onnx_file import read_model
from finedge.runtime.batch_profile import Profile
from finedge.runtime.trt.build.graph import attentions, prepare
from finedge.runtime.trt.build.memory import estimate
from finedge.runtime.trt.build.options import FILES, BuildOptions
from tests.runtime.trt.build.conftest import Heads, attention_model


def ops(model):
    return {f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in model.graph.node}


@pytest.mark.parametrize("precision", FILES)
def test_decomposed_has_standard_ops_only_and_onnx_runtime_runs_it(attention_bundle, precision):
    model = prepare(
        read_model(attention_bundle().file(FILES[precision])), BuildOptions(precision, "decomposed")
    )
    assert not model.functions
    assert not any(op.startswith("finedge") for op in ops(model))
    assert {"Softmax", "MatMul"} <= ops(model)
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_plugin_leaves_our_node_without_a_function_and_inlines_the_others(
    attention_bundle, precision
):
    model = prepare(
        read_model(attention_bundle().file(FILES[precision])), BuildOptions(precision, "plugin")
    )
    assert [n.op_type for n in model.graph.node if n.domain] == ["CrossLayerAttention"]
    assert not model.functions


def test_the_plugin_is_given_float16_between_int8_layers(attention_bundle):
    model = prepare(
        read_model(attention_bundle().file(PORTABLE_FILE)), BuildOptions("int8", "plugin")
    )
    maker = {name: node for node in model.graph.node for name in node.output}
    node = next(n for n in model.graph.node if n.op_type == "CrossLayerAttention")
    assert {maker[name].op_type for name in node.input} == {"Cast"}
    assert {maker[name].attribute[0].i for name in node.input} == {onnx.TensorProto.FLOAT16}


def test_int8_fp32_has_no_float16(attention_bundle):
    model = prepare(
        read_model(attention_bundle().file(PORTABLE_FILE)), BuildOptions("int8-fp32", "decomposed")
    )
    casts = [a.i for n in model.graph.node if n.op_type == "Cast" for a in n.attribute]
    assert onnx.TensorProto.FLOAT16 not in casts


def test_the_same_file_always_gives_the_same_bytes(attention_bundle):
    path, options = attention_bundle().file(PORTABLE_FILE), BuildOptions("int8", "decomposed")
    first, second = (prepare(read_model(path), options) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("mode", ["decomposed", "plugin"])
def test_the_model_that_was_read_stays_as_it_is(attention_bundle, mode):
    """It is read once and prepared for each mode of attention."""
    bundle = attention_bundle()
    model = read_model(bundle.file(FILES["int8"]))
    before = model.SerializeToString(deterministic=True)
    prepare(model, BuildOptions("int8", mode, debug_taps=True), taps=bundle.taps)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("mode", ["decomposed", "plugin"])
def test_functions_and_inlined_nodes_give_the_same_graph(tmp_path, mode):
    named = with_unique_names(attention_model())
    model = convert_float16(named, keep=keep_float32(named.graph))
    for name, content in (("old", model), ("new", inline(model))):
        onnx.save(content, tmp_path / name)
    models = (read_model(tmp_path / name) for name in ("old", "new"))
    old, new = (prepare(model, BuildOptions("fp16", mode)) for model in models)
    assert old.SerializeToString(deterministic=True) == new.SerializeToString(deterministic=True)


@pytest.mark.parametrize("precision", ["fp32", "int8-fp32"])
def test_the_plugin_is_refused_where_nothing_is_float16(precision):
    with pytest.raises(UsageError, match=f"--attention plugin with precision {precision}"):
        BuildOptions(precision, "plugin")


def test_the_plugin_is_refused_for_a_graph_without_attention(tiny_bundle):
    with pytest.raises(BundleError, match="no CrossLayerAttention"):
        prepare(read_model(tiny_bundle.file(FLOAT_FILE)), BuildOptions("fp16", "plugin"))


@pytest.mark.parametrize("heads", [Heads(), Heads(512, 512, shared=True), Heads(64, 32)])
def test_head_sizes_are_read_from_the_graph(attention_bundle, heads):
    (node,) = attentions(read_model(attention_bundle(heads).file(FLOAT_FILE)))
    assert (node.name, node.query, node.key, node.scale) == ("attend", "q", "k", 0.125)
    assert (node.queries, node.keys, node.d, node.dv) == (16, 64, heads.d, heads.dv)
    assert node.shared is heads.shared


def test_debug_taps_become_outputs_and_lost_ones_are_named(attention_bundle, caplog):
    bundle = attention_bundle()
    options = BuildOptions("fp16", "decomposed", debug_taps=True)
    model = prepare(
        read_model(bundle.file(FILES["fp16"])),
        options,
        taps=(Tap("keys", "k"), Tap("lost", "nowhere")),
    )
    assert [o.name for o in model.graph.output] == ["logits", "tap/keys"]
    assert "lost" in caplog.text
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


# --- options and memory ---


@pytest.mark.parametrize("text", ["", "a", "1,2", "0", "4,2,1", "1,9,8", "1,2,3,4"])
def test_a_batch_profile_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="batch profile"):
        Profile.parse(text)


def test_a_batch_profile_is_one_number_or_three():
    assert Profile.parse("1,2,8") == Profile(1, 2, 8)
    assert Profile.parse("4") == Profile(4, 4, 4)


def test_the_memory_estimate_counts_weights_and_what_is_alive_at_once(attention_bundle):
    model = prepare(
        read_model(attention_bundle().file(FLOAT_FILE)), BuildOptions("fp32", "decomposed")
    )
    weights = sum(onnx.numpy_helper.to_array(t).nbytes for t in model.graph.initializer)
    small, large = estimate(model, batch=1), estimate(model, batch=8)
    assert small.weights_mib == weights / 2**20
    assert large.activations_mib == pytest.approx(
        8 * small.activations_mib, rel=0.01
    )  # shapes have no batch
    assert (
        small.activations_mib >= 2 * 3 * 32 * 32 * 4 / 2**20
    )  # pixels and planes are alive together
    assert small.unknown == 0
