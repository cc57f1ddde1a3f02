"""The bundle: a folder that carries a classifier from export to the device.

    birds.finedge/
      manifest.json          format number, spec, taps, a sha256 of each file below, one
                             provenance record per stage
      model.fp32.onnx        model.fp16.onnx   model.int8.onnx   model.int8.cpu.onnx   golden.npz
      model.projected.onnx   the source of the INT8 files, where another form of
                             model.fp32.onnx is cheaper in INT8
      model.fp32.seg0.onnx   ...   each of these models in segments, where it was exported so
                             (`finedge.early_exit`)
      engines/  report.json  report.html  samples.json.gz   sidecar files, not in the manifest

A stage adds and replaces only its own files. It works on a copy beside the bundle and renames the
copy over the bundle. So a full disk or a kill leaves the old bundle as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from finedge.confidence import Confidence
from finedge.document import read_json
from finedge.errors import BundleError, DataError, nearest
from finedge.files import new_folder, write_text
from finedge.label_tree import Coarser, LabelTree
from finedge.provenance import (
    CalibrationRecord,
    ExportRecord,
    Record,
    TrainingRecord,
    read_stage_record,
)
from finedge.schema import Digest, Misfit, PlainName, Text, at_most, decode
from finedge.spec import Name, Spec
from finedge.temporary_files import recover

FORMAT = 1
CHUNK_BYTES = 1 << 20  # read from a file at a time
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
FLOAT_FILE = "model.fp32.onnx"
HALF_FILE = "model.fp16.onnx"
# Computes the same as FLOAT_FILE, with more of the attention projections as convolutions. A
# projection that was absorbed computes in float; as a convolution it can compute in INT8.
PROJECTED_FILE = "model.projected.onnx"
PORTABLE_FILE = "model.int8.onnx"
CPU_FILE = "model.int8.cpu.onnx"
# The files that may hold a variant. A backend opens the first that it can use.
VARIANTS: dict[str, tuple[str, ...]] = {
    "fp32": (FLOAT_FILE,),
    "fp16": (HALF_FILE,),
    "int8": (PORTABLE_FILE, CPU_FILE),
}


@dataclass(frozen=True)
class Tap:
    """A feature map that `verify` and `explain` read.

    Attributes:
        name: its name in the PyTorch model.
        tensor: its tensor in the float ONNX file.
    """

    name: Name
    tensor: Name


@dataclass(frozen=True)
class View:
    """A picture that `finedge explain` can make of a tap.

    Attributes:
        label: the caption, e.g. "layer2.1".
        kind: `attention`: the tap is the output of an attention op. The picture shows where its
            queries look, on the grid of its keys.
            `mask`: the tap is K maps [B, K, h, w] of numbers >= 0.
            `cam`: the tap [B, C, h, w] is averaged over its positions. It is the first C inputs
            of the linear layer that makes the main output.
        tap: the name of the tap.
    """

    label: Text
    kind: Literal["attention", "mask", "cam"]
    tap: Name


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json. Only a newer version writes other fields."""

    format: int
    spec: Spec
    taps: Annotated[tuple[Tap, ...], at_most(10_000)]
    files: Annotated[Mapping[PlainName, Digest], at_most(1_000)]
    provenance: Mapping[Text, Mapping[str, Any]]
    # Bundles of the first version have none.
    views: Annotated[tuple[View, ...], at_most(10_000)] = ()


@dataclass(frozen=True)
class Bundle:
    """A bundle whose digests were checked.

    Examples:
        >>> bundle = Bundle.load(Path("examples/birds.finedge"))
        >>> bundle.variants()
        ('fp32', 'fp16', 'int8')
    """

    path: Path
    spec: Spec
    files: Mapping[str, str]
    taps: tuple[Tap, ...] = ()
    views: tuple[View, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def create(
        cls,
        path: Path,
        spec: Spec,
        *,
        files: Mapping[str, Path | bytes],
        taps: tuple[Tap, ...] = (),
        views: tuple[View, ...] = (),
        provenance: Mapping[str, Any],
    ) -> Bundle:
        """Write a new bundle at `path` and replace the one that is there.

        Args:
            path: the folder.
            spec: labels, preprocessing, input and outputs.
            files: a name in the bundle -> a file to copy, or its bytes.
            taps: the feature maps that `verify` and `explain` may read.
            views: the pictures that `explain` can make.
            provenance: one record per stage.
        """
        empty = cls(path, spec, {}, taps, views, dict(provenance))
        return empty._write(files, keep=False)

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Open a bundle and check every digest. An interrupted replacement is finished first.

        Raises:
            BundleError: there is no bundle, its format is newer, its manifest is damaged, a file
                is missing or differs from the manifest, or the folder holds something that is
                neither a file nor a folder.
        """
        path = Path(path)
        recover(path)
        manifest = _read_manifest(path)
        _refuse_links(path)
        bundle = cls(
            path,
            manifest.spec,
            manifest.files,
            manifest.taps,
            manifest.views,
            manifest.provenance,
        )
        bundle._check_digests()
        return bundle

    def extend(
        self, stage: str, files: Mapping[str, Path | bytes], record: Mapping[str, Any]
    ) -> Bundle:
        """Write `files` and the provenance `record` of a stage; return the new bundle."""
        return replace(self, provenance={**self.provenance, stage: dict(record)})._write(
            files, keep=True
        )

    def file(self, name: str) -> Path:
        """Return the path of a file of the manifest."""
        if name not in self.files:
            raise BundleError(
                f"{self.path} holds no {name}",
                expected=nearest(name, self.files),
                fix=_HOW_TO_MAKE.get(name, "export again"),
            )
        return self.path / name

    def variants(self) -> tuple[str, ...]:
        """Return the variants this bundle holds, in the order fp32, fp16, int8."""
        return tuple(v for v, names in VARIANTS.items() if any(n in self.files for n in names))

    @property
    def name(self) -> str:
        """The folder's name without `.finedge`."""
        return self.path.resolve().name.removesuffix(".finedge")

    @property
    def training(self) -> TrainingRecord:
        """The record of `finedge train`; a damaged record raises `BundleError`."""
        fix = "finedge export RUN --out BUNDLE"
        return self._record(TrainingRecord, stage="train", fix=fix)

    @property
    def export(self) -> ExportRecord:
        """The record of `finedge export`; a damaged record raises `BundleError`."""
        fix = "finedge export RUN --out BUNDLE"
        return self._record(ExportRecord, stage="export", fix=fix)

    @property
    def calibration(self) -> CalibrationRecord:
        """The record of `finedge calibrate`; a damaged record raises `BundleError`."""
        fix = "finedge calibrate BUNDLE --data DIR"
        return self._record(CalibrationRecord, stage="calibrate", fix=fix)

    def confidence(self, variant: str) -> Confidence | None:
        """Return the confidence calibration of a variant; None where it was not fitted.

        Raises:
            BundleError: the record of `finedge calibrate` is damaged.
        """
        return self.calibration.confidence.get(variant)

    def coarser(self, variant: str) -> Coarser | None:
        """Return what names a group of classes where no class is sure; None without a label tree.

        Raises:
            BundleError: the record of `finedge calibrate` is damaged.
        """
        record = self.calibration.label_tree
        rules = record.rules.get(variant, ())
        if not record.tree or not rules:
            return None
        try:
            tree = LabelTree.parse(record.tree, self.spec.labels, name=f"{self.path / MANIFEST}")
        except DataError as error:
            fix = "finedge calibrate BUNDLE --data DIR --label-tree FILE"
            raise BundleError(error.what, expected=error.expected, fix=fix) from error
        return Coarser(tree, rules)

    def _record(self, kind: type[Record], *, stage: str, fix: str) -> Record:
        return read_stage_record(kind, self.provenance, stage=stage, name=str(self.path), fix=fix)

    def digest(self) -> str:
        """Return the identity of the portable part: one sha256 over the digests of all files."""
        return hashlib.sha256(json.dumps(dict(sorted(self.files.items()))).encode()).hexdigest()

    def _write(self, files: Mapping[str, Path | bytes], *, keep: bool) -> Bundle:
        with new_folder(self.path) as work:
            if keep:
                _refuse_links(self.path)
                shutil.copytree(
                    self.path,
                    work,
                    copy_function=_link_or_copy,
                    symlinks=True,
                    dirs_exist_ok=True,
                )
            for name, content in files.items():
                _write_file(work / name, content)
            digests = {n: sha256(work / n) for n in files}
            written = replace(self, files={**self.files, **digests})
            write_text(work / MANIFEST, written._manifest())
        return written

    def _manifest(self) -> str:
        content = {
            "format": FORMAT,
            "spec": self.spec.to_json(),
            "taps": [asdict(t) for t in self.taps],
            "views": [asdict(v) for v in self.views],
            "files": dict(self.files),
            "provenance": dict(self.provenance),
        }
        return json.dumps(content, indent=1)

    def _check_digests(self) -> None:
        for name, expected in self.files.items():
            if not (self.path / name).is_file():
                raise BundleError(
                    f"{self.path / name} is missing",
                    expected="every file of manifest.json",
                    fix="copy the whole folder again",
                )
            actual = sha256(self.path / name)
            if actual != expected:
                raise BundleError(
                    f"{self.path / name} has sha256 {actual[:12]}...",
                    expected=f"{expected[:12]}... as in manifest.json",
                    fix="copy or make the bundle again",
                )


_HOW_TO_MAKE = {
    **dict.fromkeys((PORTABLE_FILE, CPU_FILE), "finedge calibrate BUNDLE --data DIR"),
    HALF_FILE: "finedge export RUN --out BUNDLE, with this version",
}


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(partial(file.read, CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _read_manifest(path: Path) -> Manifest:
    file, fix = path / MANIFEST, "copy the whole folder again"
    try:
        data = read_json(file, error=BundleError, fix=fix)
    except FileNotFoundError:
        raise _no_bundle(path) from None
    number = data.get("format") if isinstance(data, Mapping) else None
    if type(number) is int and number > FORMAT:
        raise BundleError(
            f"{path} has format {number}",
            expected=f"at most {FORMAT}",
            fix="update finedge on this machine",
        )
    try:
        return decode(Manifest, data, strict=True)
    except Misfit as error:
        if error.unknown:
            raise BundleError(
                f"{file} was made by a newer finedge: {error}",
                expected="the fields of this version",
                fix="update finedge on this machine",
            ) from error
        raise BundleError(
            f"{file} is damaged: {error}",
            expected=error.expected,
            fix=fix,
        ) from error


def _no_bundle(path: Path) -> BundleError:
    return BundleError(
        f"{path} is not a bundle: no {MANIFEST}",
        expected="a folder made by finedge export",
        fix="finedge export RUN --out BUNDLE",
    )


def _refuse_links(path: Path) -> None:
    """Refuse everything except files and folders: a link may lead out of the bundle."""
    for entry in _entries(path):
        if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            what = "a link" if entry.is_symlink() else "not a file"
            raise BundleError(
                f"{entry.path} is {what}",
                expected="files and folders only",
                fix="put the file itself there, or remove it",
            )


def _entries(path: Path) -> Iterator[os.DirEntry[str]]:
    """Yield everything below a folder, without following links."""
    folders = [os.fspath(path)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write_file(target: Path, content: Path | bytes) -> None:
    target.unlink(missing_ok=True)  # it may be a hard link into the bundle being replaced
    if isinstance(content, bytes):
        target.write_bytes(content)
    else:
        shutil.copyfile(content, target)
