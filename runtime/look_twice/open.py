"""Open a bundle so that its first pass shows a map, or say what it lacks."""

from __future__ import annotations

from finedge.bundle import Bundle, View
from finedge.errors import BundleError, UsageError
from finedge.runtime.backend import Backend, Session
from finedge.runtime.explain.open import open_views
from finedge.runtime.look_twice.options import LookOptions, LookView
from finedge.runtime.look_twice.second_look import SecondLook
from finedge.runtime.ort.backend import OnnxRuntimeBackend

# The kinds of view for each choice, the first that the bundle has.
ORDER: dict[LookView, tuple[str, ...]] = {
    "auto": ("cam", "attention", "mask"),
    "attention": ("attention", "mask"),
    "cam": ("cam",),
}


def open_second_look(
    backend: Backend, bundle: Bundle, *, variant: str, options: LookOptions
) -> tuple[Session, SecondLook]:
    """Open a variant; its outputs also have the tensors of the map.

    Raises:
        BundleError: the bundle has no such map, or takes whole frames.
        UsageError: the backend shows no tensors, or the variant is float16.
    """
    view = chosen_view(bundle, options.look_view)
    if not isinstance(backend, OnnxRuntimeBackend):
        raise UsageError(
            f"--look-twice: backend '{backend.name}' shows no tensors inside of a model",
            expected="onnxruntime",
            fix="--backend onnxruntime, or leave out --look-twice",
        )
    views = open_views(bundle, variant=variant, views=(view,))
    return views.session(backend), SecondLook(views, options.look_crop)


def chosen_view(bundle: Bundle, choice: LookView) -> View:
    """Return the view whose map is read: of its kind, the last in the bundle.

    The last is the deepest layer's.

    Raises:
        BundleError: the bundle declares none of the kind, or takes whole frames.
    """
    kinds = ORDER[choice]
    found = [view for kind in kinds for view in reversed(bundle.views) if view.kind == kind]
    if not found:
        declared = ", ".join(sorted({view.kind for view in bundle.views})) or "no map"
        raise BundleError(
            f"{bundle.path} declares {declared}: --look-twice has no peak to look at",
            expected=f"a view of kind {' or '.join(kinds)}",
            fix="finedge export RUN --out BUNDLE with this version writes the views of its model"
            if not bundle.views
            else "--look-view auto",
        )
    if bundle.spec.preprocess.frame is not None:
        raise BundleError(
            f"{bundle.path} takes whole frames: the crop lies inside of its graph",
            fix="finedge export RUN --out BUNDLE without --frame",
        )
    return found[0]
