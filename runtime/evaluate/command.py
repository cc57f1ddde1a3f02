"""`finedge evaluate`: the accuracy of a bundle on a split, on the path of a camera's frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import OmitArgPrefixes, Positional

from finedge.bundle import Bundle
from finedge.confusion.counts import Confusion
from finedge.data.doubts import doubts
from finedge.files import writable_place, write_text
from finedge.pages.extra import require_jinja2
from finedge.runtime.early_exit.record import exit_record, exits_text
from finedge.runtime.early_exit.session import EarlyExitSession
from finedge.runtime.evaluate.labelled import SplitOptions, evaluated_images
from finedge.runtime.evaluate.predict import Answers, predict
from finedge.runtime.look_twice.options import ONE_LOOK, LookOptions
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
    early_exit: bool = False,
    look: OmitArgPrefixes[LookOptions] = ONE_LOOK,
    page: Path | None = None,
) -> dict[str, Any]:
    """Print the accuracy of a bundle on a split: top1, top5, n, wilson95, worst_pairs.

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
        early_exit: run the rest of the model only where no exit is sure; the result also has the
            share and the accuracy of each exit.
        look: a second look at a part of each image.
        page: also write FILE.html, a page with the confused classes, and pictures of the worst
            pairs.
    """
    from finedge.runtime.classifier import Classifier

    if page:
        require_jinja2("--page")
        writable_place(page.parent, option="--page")
    loaded = Bundle.load(bundle)
    evaluated = evaluated_images(loaded, dataset)
    items = first_balanced(evaluated.items, images)
    with Classifier.open(
        loaded, variant=variant, backend=backend, early_exit=early_exit, look=look
    ) as classifier:
        answers = predict(classifier, items)
        accuracy, exits = answers.record(), _exits(classifier, answers)
        if robustness:
            accuracy = perturb.robustness(accuracy, _perturbed(classifier, items))
        session = _session_record(classifier)
    confusion = Confusion(loaded.spec.labels, items, answers.ranked[:, 0])
    record = {
        **accuracy,
        **exits,
        **_look_record(loaded, look),
        "worst_pairs": [pair.record(evaluated.root) for pair in confusion.worst_pairs()],
        **session,
        "split": dataset.split,
        "data": evaluated.record,
    }
    if page:
        _write_page(page, loaded, confusion=confusion, record=record)
        record["page"] = str(page.resolve())
    return record


def _write_page(
    path: Path, bundle: Bundle, *, confusion: Confusion, record: Mapping[str, Any]
) -> None:
    from finedge.pages.answers import AnswersPage, answers_page

    spec = bundle.spec
    about = (
        f"{spec.model} on {spec.backbone}, {spec.input.width} px, {len(spec.labels)} classes. "
        f"{record['file']} on {record['backend']} ({record['precision']}). "
        f"Measured on the {record['split']} split."
    )
    if "early_exit" in record:
        about += f" With early exits: {exits_text(record['early_exit'])}."
    warnings = doubts(record["data"])
    write_text(path, answers_page(AnswersPage(bundle.name, about, confusion, warnings)))


def _perturbed(classifier: Classifier, items: tuple[Item, ...]) -> dict[str, dict[str, object]]:
    """Return the accuracy on the same images under each perturbation."""
    return {
        name: predict(classifier, items, perturbation=name).record()
        for name in perturb.PERTURBATIONS
    }


def _exits(classifier: Classifier, answers: Answers) -> dict[str, dict[str, object]]:
    """Return the record of the early exits; empty without them."""
    session = classifier.session
    if not isinstance(session, EarlyExitSession) or answers.taken is None:
        return {}
    return {"early_exit": exit_record(session.exits, answers.taken, answers.correct)}


def _look_record(bundle: Bundle, look: LookOptions) -> dict[str, dict[str, object]]:
    """Return how images were looked at twice, with the view that was read; empty for one look."""
    if not look.look_twice:
        return {}
    from finedge.runtime.look_twice.open import chosen_view

    view = chosen_view(bundle, look.look_view)
    return {"look_twice": {"crop": look.look_crop, "view": view.kind}}


def _session_record(classifier: Classifier) -> dict[str, str]:
    info = classifier.session.info
    return {
        "variant": classifier.variant,
        "backend": info.backend,
        "file": info.file,
        "precision": info.precision,
    }
