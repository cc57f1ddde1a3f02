"""The numbers: against the numpy reference, against PyTorch, for every model that has views."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finedge.bundle import View
from finedge.errors import BundleError
from finedge.export.to_onnx import FramesToOutputs
from finedge.ops import cross_layer_attention
from finedge.runtime.explain.explainer import Explainer
from finedge.runtime.explain.maps import attention_weights, effective_positions, full_scale, unit_of
from finedge.runtime.explain.views import ExplainOptions
from finedge.train.layers.cross_layer_attention import CrossLayerAttention
from finedge.train.models import names

ATTENTION_TOLERANCE = 1e-5  # float32 sums of another order
LOGIT_TOLERANCE = 1e-4  # relative to max(1, |logit|)


def reference_weights(q, k, scale):
    """The weights as the reference op returns them when the values are one-hot: [Nq, Nk]."""
    keys = k.shape[2] * k.shape[3]
    v = np.eye(keys, dtype=k.dtype).reshape(1, keys, *k.shape[2:])
    return cross_layer_attention(q, k, v, scale=scale).reshape(keys, -1).T


def inside_torch(model, spec, frame):
    """What PyTorch computes: each module's output and each attention's inputs (q, k), by path."""
    outputs, inputs = {}, {}

    def keep(path):
        def hook(module, arguments, output):
            outputs[path] = output
            if isinstance(module, CrossLayerAttention):
                inputs[path] = [t.numpy() for t in arguments[:2]]

        return hook

    hooks = [
        module.register_forward_hook(keep(path))
        for path, module in model.named_modules()
        if path in model.taps
    ]
    with torch.no_grad():
        results = FramesToOutputs(model, spec.preprocess).eval()(torch.from_numpy(frame[None]))
    for hook in hooks:
        hook.remove()
    scores = {output.name: r.numpy()[0] for output, r in zip(spec.outputs, results, strict=False)}
    return SimpleNamespace(outputs=outputs, inputs=inputs, scores=scores[spec.main.name])


@pytest.mark.parametrize("name", names())
def test_every_view_of_every_model_shows_what_pytorch_computes(make_bundle, frame, name):
    made = make_bundle(name)
    if not made.model.views:
        pytest.skip(f"{name} declares no views")
    explainer = Explainer(made.bundle)
    explained, inside = (
        explainer(frame, ExplainOptions(contrast=True)),
        inside_torch(made.model, made.bundle.spec, frame),
    )
    assert explained.top[0].index == inside.scores.argmax()
    assert {panel.view for panel in explained.panels} == set(made.model.views)
    for panel in explained.panels:
        CHECKS[panel.view.kind](panel, inside, made.model, explainer)


def check_attention(panel, inside, model, explainer):
    q, k = inside.inputs[panel.view.tap]
    weights = reference_weights(q, k, model.get_submodule(panel.view.tap).scale)
    (heat,) = panel.maps
    assert heat.values.shape == k.shape[2:]
    assert heat.values.ravel() == pytest.approx(weights.mean(axis=0), abs=ATTENTION_TOLERANCE)
    assert heat.values.sum() == pytest.approx(1)
    assert panel.numbers["queries"] == len(weights)


def check_mask(panel, inside, model, explainer):
    masks = inside.outputs[panel.view.tap].numpy()[0]
    expected = masks if len(panel.maps) > 1 else masks.mean(axis=0, keepdims=True)
    assert np.stack([m.values for m in panel.maps]) == pytest.approx(expected, abs=1e-4)
    if panel.unit == "share":
        assert [m.values.sum() for m in panel.maps] == pytest.approx(
            [1] * len(panel.maps), abs=1e-3
        )


def check_cam(panel, inside, model, explainer):
    (heat,) = panel.maps
    features = inside.outputs[panel.view.tap].numpy()[0]
    linear = next(p.linear for p in explainer.views if p.view == panel.view)
    assert heat.values.shape == features.shape[1:]
    if len(features) != linear.weight.shape[1]:
        return  # this map is one part of what the linear layer sees
    best, second = np.argsort(-inside.scores)[:2]
    score, bias = float(inside.scores[best]), float(linear.bias[best])
    if "rather_than" in panel.numbers:
        score, bias = score - float(inside.scores[second]), bias - float(linear.bias[second])
    assert heat.values.mean() + bias == pytest.approx(
        score, abs=LOGIT_TOLERANCE * max(1, abs(score))
    )


CHECKS = {"attention": check_attention, "mask": check_mask, "cam": check_cam}


@pytest.mark.parametrize("query", [(1, 1), (3, 2)])
def test_attention_weights_equal_the_numpy_reference(query):
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(1, 8, *query)), rng.normal(size=(1, 8, 5, 4))
    weights = attention_weights(q[0], k[0], scale=0.35)
    assert weights.shape == (query[0] * query[1], 20)
    assert weights == pytest.approx(reference_weights(q, k, 0.35), abs=1e-12)


@pytest.mark.parametrize(("at", "index"), [((0.0, 0.0), 0), ((1.0, 1.0), -1)])
def test_at_shows_one_query_and_where_it_is(make_bundle, frame, at, index):
    made = make_bundle("cnl")
    inside = inside_torch(made.model, made.bundle.spec, frame)
    panel = next(
        p
        for p in Explainer(made.bundle)(frame, ExplainOptions(at=at)).panels
        if p.view.kind == "attention"
    )
    q, k = inside.inputs[panel.view.tap]
    expected = reference_weights(q, k, made.model.get_submodule(panel.view.tap).scale)[index]
    assert panel.maps[0].values.ravel() == pytest.approx(expected, abs=ATTENTION_TOLERANCE)
    assert panel.mark is not None


def test_a_label_shows_the_evidence_of_that_class(make_bundle, frame):
    made = make_bundle("plain")
    scores = inside_torch(made.model, made.bundle.spec, frame).scores
    explainer = Explainer(made.bundle)
    for index in range(len(scores)):
        (panel,) = explainer(frame, ExplainOptions(label=index)).panels
        assert panel.numbers["label"] == made.bundle.spec.labels[index]
        bias = made.model.classifier.bias[index].item()
        assert panel.maps[0].values.mean() + bias == pytest.approx(
            float(scores[index]), abs=LOGIT_TOLERANCE * max(1, abs(float(scores[index])))
        )


def test_the_spread_counts_positions():
    assert effective_positions(np.full(12, 0.3)) == pytest.approx(12)
    assert effective_positions(np.array([[0, 5.0, 0], [1, 1, 0], [0, 0, 0]])) == pytest.approx(
        [1, 2, 0]
    )


def test_shares_are_scaled_by_the_uniform_level_and_never_stretched():
    even = np.full((1, 4, 4), 1 / 16)
    assert unit_of(even) == "share"
    assert full_scale(list(even), "share") == 3 / 16
    decided = np.zeros((4, 4))
    decided[1, 2] = 1
    assert full_scale([decided], "share") == 1
    assert unit_of(np.full((1, 4, 4), 0.5)) == "gate"
    assert full_scale([np.full((4, 4), 0.5)], "gate") == 1


def test_a_bundle_without_views_says_to_export_again(make_bundle):
    with pytest.raises(BundleError, match="declares no views") as raised:
        Explainer(make_bundle("plain", views=()).bundle)
    assert "export" in raised.value.fix


@pytest.mark.parametrize("kind", ["attention", "cam"])
def test_one_kind_of_view_alone_is_enough(make_bundle, frame, kind):
    views = tuple(v for v in make_bundle("cnl").model.views if v.kind == kind)
    explained = Explainer(make_bundle("cnl", views=views).bundle)(frame)
    assert {panel.view.kind for panel in explained.panels} == {kind}


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (View("x", "cam", "nowhere"), "tap 'nowhere'"),
        (View("x", "dream", "cross_layer"), "kind 'dream'"),
    ],
)
def test_a_view_that_does_not_fit_is_refused(make_bundle, view, words):
    with pytest.raises(BundleError, match=words):
        Explainer(make_bundle("cnl", views=(view,)).bundle)


def test_an_attention_view_of_another_tensor_is_refused(make_bundle):
    bundle = make_bundle("cnl").bundle
    with pytest.raises(BundleError, match="CrossLayerAttention"):
        Explainer(make_bundle("cnl", views=(View("x", "attention", bundle.taps[-1].name),)).bundle)
