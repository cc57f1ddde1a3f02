"""Groups of classes: the coarser answer where the class is not sure.

    {"woodpecker": ["downy woodpecker", "hairy woodpecker"],
     "finch": {"goldfinch": ["american goldfinch", "lesser goldfinch"],
               "rosefinch": ["house finch", "purple finch"]}}

A name holds classes, or further names. A class stands at most once, and need not stand at all.
"A finch, which one I cannot say" is then an answer: the probability of a group is the sum of those
of its classes. `finedge calibrate --label-tree` fits from which probability on a group is named
(`finedge.calib.held_out.label_tree`), and stores the tree and the thresholds in the bundle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from finedge.document import read_json
from finedge.errors import DataError, nearest
from finedge.schema import Count, Share, at_most

KEY = "label_tree"  # of the record `calibrate`
MAX_DEPTH = 8
MAX_GROUPS = 10_000
MAX_NAME = 200  # characters
FORM = 'groups of classes: {"finch": ["house finch", "purple finch"], ...}'


@dataclass(frozen=True)
class Group:
    """A name for some classes.

    Attributes:
        label: the name.
        depth: 1 for a group that is in no other.
        members: the indices of its classes, also of those in groups below it.
    """

    label: str
    depth: int
    members: tuple[int, ...]


@dataclass(frozen=True)
class LabelTree:
    """The groups of a classifier's classes."""

    groups: tuple[Group, ...]
    classes: int

    @classmethod
    def parse(cls, data: Any, labels: Sequence[str], *, name: str) -> LabelTree:
        """Return the tree of plain data.

        Args:
            data: nested names, as above.
            labels: the classes of the bundle.
            name: of the file, for an error.

        Raises:
            DataError: another form, a class that is unknown or stands twice, a group without a
                class or with the name of another group or of a class.
        """
        groups = tuple(_Reader(labels, name).groups(data))
        if not groups:
            raise DataError(f"{name} has no groups", expected=FORM)
        return cls(groups, len(labels))

    @property
    def depth(self) -> int:
        """The depth of the deepest group."""
        return max(group.depth for group in self.groups)

    @cached_property
    def membership(self) -> NDArray[np.bool_]:
        """Whether a class is in a group, bool [groups, classes]."""
        table = np.zeros((len(self.groups), self.classes), np.bool_)
        for row, group in zip(table, self.groups, strict=True):
            row[list(group.members)] = True
        return table

    def best(
        self, p: NDArray[np.floating], *, depth: int
    ) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
        """Return the most probable group of a depth for each row.

        Args:
            p: probabilities, float [n, classes].
            depth: 1 to `depth`; each has a group.

        Returns:
            the index of the group in `groups`, [n], and its probability, [n].
        """
        rows = np.array([i for i, group in enumerate(self.groups) if group.depth == depth])
        sums = p @ self.membership[rows].T.astype(p.dtype)
        best = sums.argmax(axis=1)
        return rows[best], np.take_along_axis(sums, best[:, None], axis=1)[:, 0]


@dataclass(frozen=True)
class CoarserRule:
    """From which probability on a group of a depth is named.

    Attributes:
        depth: of the groups.
        threshold: in [0, 1]; None: no group of this depth is named.
    """

    depth: Count
    threshold: Share | None


@dataclass(frozen=True)
class LabelTreeRecord:
    """The tree in a bundle, and its rules by variant; empty without `--label-tree`."""

    tree: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Annotated[tuple[CoarserRule, ...], at_most(MAX_DEPTH)]] = field(
        default_factory=dict
    )


@dataclass(frozen=True)
class Coarser:
    """Names the deepest group that is sure.

    Examples:
        >>> tree = LabelTree.parse({"finch": ["house", "purple"]}, ("house", "purple", "jay"),
        ...                        name="labels.json")
        >>> Coarser(tree, (CoarserRule(1, 0.8),))(np.array([0.5, 0.375, 0.125], np.float32))
        ('finch', 0.875)
    """

    tree: LabelTree
    rules: tuple[CoarserRule, ...]

    def __call__(self, p: NDArray[np.floating]) -> tuple[str, float] | None:
        """Return the name and the probability of a group; None where no group is sure.

        Args:
            p: the probabilities of the classes, float [classes].
        """
        for rule in sorted(self.rules, key=lambda rule: -rule.depth):
            if rule.threshold is None or not 1 <= rule.depth <= self.tree.depth:
                continue
            index, sums = self.tree.best(p[None], depth=rule.depth)
            if sums[0] >= rule.threshold:
                return self.tree.groups[index[0]].label, min(1.0, float(sums[0]))
        return None


def read_label_tree(path: Path) -> Any:
    """Return the plain data of a file; `LabelTree.parse` checks them.

    Raises:
        DataError: it is missing, or is not JSON.
    """
    fix = "write a file as docs/stages/calibrate.md shows"
    try:
        return read_json(path, error=DataError, fix=fix)
    except FileNotFoundError:
        raise DataError(f"--label-tree {path} is missing", expected=FORM) from None


@dataclass
class _Reader:
    """Walks the plain data; `name` is the file's."""

    labels: Sequence[str]
    name: str
    _index: dict[str, int] = field(init=False)
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._index = {label: i for i, label in enumerate(self.labels)}

    def groups(self, data: Any) -> Iterator[Group]:
        """Yield every group, each after those below it."""
        if not isinstance(data, Mapping):
            raise self._misfit(f"{data!r:.60}")
        for label, content in data.items():
            yield from self._group(label, content, depth=1)

    def _group(self, label: str, content: Any, *, depth: int) -> Iterator[Group]:
        self._check(label, depth)
        if isinstance(content, Mapping):
            members: list[int] = []
            for inner, value in content.items():
                below = list(self._group(inner, value, depth=depth + 1))
                members += below[-1].members
                yield from below
        elif isinstance(content, list):
            members = [self._member(entry, label) for entry in content]
        else:
            raise self._misfit(f"the group '{label}' is {content!r:.60}")
        if not members:
            raise self._misfit(f"the group '{label}' has no classes")
        yield Group(label, depth, tuple(sorted(members)))

    def _check(self, label: str, depth: int) -> None:
        if not 0 < len(label) <= MAX_NAME:
            raise self._misfit(f"the name of a group has {len(label)} characters")
        if label == "unknown":
            raise self._misfit("a group 'unknown': that is the answer where no group is sure")
        if label in self._index:
            raise self._misfit(f"the group '{label}' has the name of a class")
        if label in self._seen:
            raise self._misfit(f"'{label}' stands twice")
        if depth > MAX_DEPTH or len(self._seen) > MAX_GROUPS + len(self.labels):
            raise self._misfit(f"more than {MAX_DEPTH} levels or {MAX_GROUPS} groups")
        self._seen.add(label)

    def _member(self, entry: Any, group: str) -> int:
        if not isinstance(entry, str):
            raise self._misfit(f"the group '{group}' holds {entry!r:.60}")
        if entry in self._seen:
            raise self._misfit(f"'{entry}' stands twice")
        if entry not in self._index:
            raise DataError(
                f"{self.name}: the bundle has no class '{entry}' (group '{group}')",
                expected=nearest(entry, self.labels),
            )
        self._seen.add(entry)
        return self._index[entry]

    def _misfit(self, what: str) -> DataError:
        return DataError(f"{self.name}: {what}", expected=FORM)
