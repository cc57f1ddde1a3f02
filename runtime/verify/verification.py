"""What `finedge verify` compares with what."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finedge.bundle import Bundle
from finedge.data import Item
from finedge.golden import read_golden
from finedge.image import read_image
from finedge.preprocess import preprocess_batch
from finedge.runtime.backend import Backend, get_backend
from finedge.runtime.evaluate.labelled import bundle_dataset


@dataclass(frozen=True)
class Verification:
    """What is compared with what: a bundle on a backend, with its golden frame and its run."""

    bundle: Bundle
    backend: Backend
    data: Path | None
    run: Path | None
    images: int
    variants: tuple[str, ...]

    @cached_property
    def golden(self) -> dict[str, NDArray[np.generic]]:
        """The arrays of golden.npz."""
        return read_golden(self.bundle)

    @property
    def golden_batch(self) -> NDArray[np.uint8]:
        """The golden input as a batch: uint8 [1, H, W, 3]."""
        return self.golden["input"][None].astype(np.uint8, copy=False)

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The real images, of val, else of test, else of train.

        No accuracy is measured, so images that were trained on are as good as others.
        """
        dataset = bundle_dataset(self.bundle, self.data, whole=True)
        split = next((s for s in ("val", "test", "train") if dataset.splits.get(s)), "val")
        items = dataset.split(split)
        return tuple(random.Random(0).sample(items, min(self.images, len(items))))

    @cached_property
    def batch(self) -> NDArray[np.uint8]:
        """The real images, preprocessed: uint8 [N, H, W, 3]."""
        settings = self.bundle.spec.preprocess
        frames = (read_image(item.path) for item in self.items)
        return preprocess_batch(frames, settings, count=len(self.items))

    @cached_property
    def reference(self) -> tuple[Backend, Bundle]:
        """The torch backend, and this bundle with `run` recorded as its run."""
        provenance = self.bundle.provenance
        record = {**provenance.get("train", {}), "run": str(self.run)}
        return get_backend("torch"), replace(
            self.bundle, provenance={**provenance, "train": record}
        )

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The taps as sessions and golden.npz name them: `tap/NAME`."""
        return tuple(f"tap/{tap.name}" for tap in self.bundle.taps)

    def why_no_run(self) -> str:
        """Return why nothing is compared with the run, or ''."""
        if self.run is None:
            return "no --run given"
        return "" if self.data else "no --data given: the run is compared on real images"
