"""Mixed images, class weights, and that every model's loss takes such targets."""

import pytest
import torch
import torch.nn.functional as F

from finedge.train.models import MODELS, build_model
from finedge.train.recipe import Recipe
from finedge.train.targets import Targets, balanced_weights

LABELS = [0] * 6 + [1] * 2 + [2] * 4
ROUNDING = 1e-5  # relative, of a float32 sum


def batch(count=4):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (count, 16, 16, 3), dtype=torch.uint8, generator=generator)
    return frames, torch.tensor([0, 1, 2, 1][:count])


def made(**values):
    torch.manual_seed(3)
    return Targets(Recipe(**values), labels=LABELS, classes=3)(*batch())


@pytest.fixture(scope="module", params=MODELS)
def scored(request):
    """Every model's outputs for four images, in evaluation mode: no term but the targets'."""
    torch.manual_seed(0)
    model = build_model(request.param, num_classes=3, backbone="mobilenetv2_035").eval()
    with torch.no_grad():
        return model, model(torch.randn(4, 3, 32, 32))


def test_without_mixing_and_weights_nothing_changes():
    frames, targets, smoothing = made(label_smoothing=0.2)
    assert torch.equal(frames, batch()[0])
    assert (targets.dtype, smoothing) == (torch.int64, 0.2)


def test_mixup_mixes_pixels_and_targets_by_one_share():
    frames, targets, _ = made(mixup=1.0)
    before, labels = batch()
    one_hot = F.one_hot(labels, 3).float()
    share = ((targets - one_hot.roll(1, 0)) / (one_hot - one_hot.roll(1, 0)))[0, 0]
    assert 0 < share < 1
    mixed = share * before.float() + (1 - share) * before.float().roll(1, 0)
    torch.testing.assert_close(frames, mixed)
    torch.testing.assert_close(targets, share * one_hot + (1 - share) * one_hot.roll(1, 0))


def test_cutmix_weighs_the_targets_by_the_area_of_the_box():
    frames, targets, _ = made(cutmix=1.0)
    before, _ = batch()
    kept = (frames == before.float()).all(dim=3).float().mean(dim=(1, 2))
    assert targets[0, 0] == pytest.approx(kept[0].item(), abs=0.02)  # equal pixels by chance
    assert torch.allclose(targets.sum(dim=1), torch.ones(4))


def test_a_share_of_the_batches_is_mixed():
    torch.manual_seed(0)
    targets = Targets(Recipe(mixup=0.4, mix_share=0.3), labels=LABELS, classes=3)
    mixed = sum(targets(*batch())[1].is_floating_point() for _ in range(200))
    assert 40 <= mixed <= 80


def test_the_draws_follow_torchs_seed():
    first, second = (made(mixup=1.0)[:2] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_balanced_weights_have_mean_one_over_the_images():
    weights = balanced_weights(LABELS, classes=3)
    assert weights.tolist() == pytest.approx([12 / 18, 12 / 6, 12 / 12])
    assert weights[torch.tensor(LABELS)].mean().item() == pytest.approx(1)


def test_the_loss_of_mixed_targets_is_the_mean_of_the_losses(scored):
    model, outputs = scored
    labels = torch.tensor([0, 1, 2, 1])
    other = labels.roll(1)
    soft = 0.3 * F.one_hot(labels, 3).float() + 0.7 * F.one_hot(other, 3).float()
    for smoothing in (0.0, 0.1):
        parts = [model.loss(outputs, y, label_smoothing=smoothing) for y in (labels, other)]
        mixed = model.loss(outputs, soft, label_smoothing=smoothing)
        torch.testing.assert_close(mixed, 0.3 * parts[0] + 0.7 * parts[1])


def test_a_class_weight_multiplies_the_loss_of_an_image(scored):
    model, outputs = scored
    recipe = Recipe(class_weights="balanced", label_smoothing=0.1)
    labels = torch.tensor([0, 1, 2, 1])
    targets = Targets(recipe, labels=LABELS, classes=3)
    _, weighted, smoothing = targets(batch()[0], labels)
    single = [
        model.loss({k: v[i : i + 1] for k, v in outputs.items()}, y[None], label_smoothing=0.1)
        for i, y in enumerate(labels)
    ]
    expected = (torch.stack(single) * balanced_weights(LABELS, classes=3)[labels]).mean()
    loss = model.loss(outputs, weighted, label_smoothing=smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=ROUNDING)
