"""`finedge evaluate`: the accuracy of a bundle on a split, on the path of a camera's frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import OmitArgPrefixes, Positional

from finedge.bundle import Bundle
from finedge.runtime.evaluate.labelled import SplitOptions, evaluated_images
from finedge.runtime.evaluate.predict import predict
from finedge.subset import first_balanced
from finedge.synthetic import perturb

if TYPE_CHECKING:
    from finedge.data import Item
    from finedge.runtime.classifier import Classifier

TEST_SPLIT = SplitOptions()


def evaluate(
    bundle: Positional[Path],
    *,
    dataset: OmitArgPrefixes[SplitOptions] = TEST_SPLIT,
    variant: str = "auto",
    backend: str = "auto",
    robustness: bool = False,
    images: int = 0,
) -> dict[str, Any]:
    """Print the accuracy of a bundle on a split: top1, top5, n, wilson95.

    The split is the one that training stored. It knows images by their content, so renamed files
    stay where they were.

        finedge evaluate birds.finedge --data photos --variant int8

    Args:
        bundle: the bundle's folder.
        dataset: the images.
        variant: fp32, fp16 or int8; auto is the one that `finedge choose` names.
        backend: a backend's name; auto is the first that runs on this machine.
        robustness: also measure the same images rotated, scaled, seen from the side, bent and
            cluttered (`finedge.synthetic.perturb`).
        images: how many images, chosen evenly over the classes; 0 is the whole split.
    """
    from finedge.runtime.classifier import Classifier

    loaded = Bundle.load(bundle)
    evaluated = evaluated_images(loaded, dataset)
    items = first_balanced(evaluated.items, images)
    with Classifier.open(loaded, variant=variant, backend=backend) as classifier:
        accuracy = predict(classifier, items).record()
        if robustness:
            accuracy = perturb.robustness(accuracy, _perturbed(classifier, items))
        session = _session_record(classifier)
    return {**accuracy, **session, "split": dataset.split, "data": evaluated.record}


def _perturbed(classifier: Classifier, items: tuple[Item, ...]) -> dict[str, dict[str, object]]:
    """Return the accuracy on the same images under each perturbation."""
    return {
        name: predict(classifier, items, perturbation=name).record()
        for name in perturb.PERTURBATIONS
    }


def _session_record(classifier: Classifier) -> dict[str, str]:
    info = classifier.session.info
    return {
        "variant": classifier.variant,
        "backend": info.backend,
        "file": info.file,
        "precision": info.precision,
    }
