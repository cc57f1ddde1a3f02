import torch

from finedge.train.models import build_model
from finedge.train.models.levels import EPSILON, moments


def test_the_classifier_sees_moments_of_earlier_maps_beside_the_mean():
    torch.manual_seed(0)
    model = build_model("levels", num_classes=5, backbone="mobilenetv2_035").eval()
    seen = []
    model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        model(images)
        last, maps = model.backbone.run(images, taps=model.backbone.stages[-3:-1])
    expected = [
        statistic
        for x in maps.values()
        for statistic in (x.mean(dim=(2, 3)), x.flatten(2).std(dim=2, correction=0))
    ]
    early = torch.cat(expected, dim=1)
    assert torch.equal(seen[0][:, : last.shape[1]], last.mean(dim=(2, 3)))
    normalised = model.norm(early)
    torch.testing.assert_close(seen[0][:, last.shape[1] :], normalised, rtol=1e-3, atol=5e-3)


def test_a_constant_map_has_a_finite_gradient():
    flat = torch.ones(2, 3, 4, 4, requires_grad=True)
    statistics = moments(flat)
    statistics.sum().backward()
    torch.testing.assert_close(statistics[:, 3:], torch.full((2, 3), EPSILON**0.5))
    assert flat.grad.isfinite().all()
