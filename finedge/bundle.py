"""The bundle: a folder that carries a classifier from export to the device.

    birds.finedge/
      manifest.json     format number, spec, taps, sha256 of the files below, one provenance record a stage
      model.fp32.onnx   model.fp16.onnx   model.int8.onnx   model.int8.cpu.onnx   golden.npz
      model.projected.onnx   what the INT8 files are made of, where a form other than that of model.fp32.onnx is cheaper in INT8
      engines/  report.json  report.html  samples.json.gz         sidecars, outside the manifest

Each stage adds and replaces only its own files. A change is made in a copy beside the bundle and renamed over it, so a full
disk or a kill leaves the old bundle as it was.
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

from finedge.document import read_json
from finedge.errors import BundleError, nearest
from finedge.files import new_folder, write_text
from finedge.leftovers import recover
from finedge.provenance import Calibration, Export, Record, Training, recorded
from finedge.schema import Digest, Misfit, PlainName, Text, at_most, decode
from finedge.spec import Name, Spec

FORMAT = 1
PIECE = 1 << 20  # bytes of a file at a time
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
FLOAT_FILE = "model.fp32.onnx"
HALF_FILE = "model.fp16.onnx"
# The function of FLOAT_FILE with more of its attention projections as convolutions: absorbing one turns INT8 work into float work.
PROJECTED_FILE = "model.projected.onnx"
PORTABLE_FILE = "model.int8.onnx"
CPU_FILE = "model.int8.cpu.onnx"
# The files that may hold a variant; a backend picks the first it can use.
VARIANTS: dict[str, tuple[str, ...]] = {
    "fp32": (FLOAT_FILE,),
    "fp16": (HALF_FILE,),
    "int8": (PORTABLE_FILE, CPU_FILE),
}


@dataclass(frozen=True)
class Tap:
    """A feature map that `verify` and `explain` may look at: its name in the model and its tensor in the float ONNX file."""

    name: Name
    tensor: Name


@dataclass(frozen=True)
class View:
    """A picture that `finedge explain` can make of a tap.

    Attributes:
        label: the caption, e.g. "layer2.1".
        kind: `attention`: the tap is what an attention op returned; the picture shows where its queries look, on the grid of its keys.
            `mask`: the tap is K maps [B, K, h, w] of numbers >= 0. `cam`: the tap [B, C, h, w] is averaged over its positions and fills the
            first C inputs of the linear layer behind the main output.
        tap: the tap's name.
    """

    label: Text
    kind: Literal["attention", "mask", "cam"]
    tap: Name


@dataclass(frozen=True)
class Manifest:
    """What manifest.json holds; a field beyond these is a newer version's."""

    format: int
    spec: Spec
    taps: Annotated[tuple[Tap, ...], at_most(10_000)]
    files: Annotated[Mapping[PlainName, Digest], at_most(1_000)]
    provenance: Mapping[Text, Mapping[str, Any]]
    # Bundles of the first version have none.
    views: Annotated[tuple[View, ...], at_most(10_000)] = ()


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; every digest was checked."""

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
        """Write a new bundle at `path`, replacing what is there; `files` maps a name in the bundle to a file to copy or to bytes."""
        empty = cls(path, spec, {}, taps, views, dict(provenance))
        return empty._write(files, keep=False)

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Open a bundle and check every digest; first end an interrupted replacement of it.

        Example:
            >>> from finedge import Bundle
            >>> bundle = Bundle.load("examples/birds.finedge")
            >>> bundle.name, bundle.variants()
            ('birds', ('fp32', 'fp16', 'int8'))
            >>> bundle.spec.labels[0], bundle.spec.preprocess.crop
            ('curve-billed-creeper', 128)

        Raises:
            BundleError: no bundle there, a newer format, a damaged manifest, a missing file, bytes
                that differ from the manifest, or anything in the folder that is neither a file nor
                a folder.
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
        """Return the bundle with `files` added or replaced and `record` as the provenance of `stage`."""
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
    def training(self) -> Training:
        """What the record `train` says; a damaged one raises `BundleError`."""
        fix = "finedge export RUN --out BUNDLE"
        return self._recorded(Training, stage="train", fix=fix)

    @property
    def export(self) -> Export:
        """What the record `export` says; a damaged one raises `BundleError`."""
        fix = "finedge export RUN --out BUNDLE"
        return self._recorded(Export, stage="export", fix=fix)

    @property
    def calibration(self) -> Calibration:
        """What the record `calibrate` says; a damaged one raises `BundleError`."""
        fix = "finedge calibrate BUNDLE --data DIR"
        return self._recorded(Calibration, stage="calibrate", fix=fix)

    def _recorded(self, kind: type[Record], *, stage: str, fix: str) -> Record:
        return recorded(kind, self.provenance, stage=stage, name=str(self.path), fix=fix)

    def digest(self) -> str:
        """Return one sha256 over the digests of all files: the identity of the portable part."""
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
                _place(work / name, content)
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
            found = sha256(self.path / name)
            if found != expected:
                what = f"{self.path / name} has sha256 {found[:12]}..."
                raise BundleError(
                    what,
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
        for piece in iter(partial(file.read, PIECE), b""):
            digest.update(piece)
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
            expected, fix = "the fields of this version", "update finedge on this machine"
            raise BundleError(
                f"{file} was made by a newer finedge: {error}",
                expected=expected,
                fix=fix,
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
    """Refuse what is neither a file nor a folder: a link may lead out of the bundle."""
    for entry in _entries(path):
        if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
            what = "a link" if entry.is_symlink() else "no file"
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


def _place(target: Path, content: Path | bytes) -> None:
    target.unlink(missing_ok=True)  # it may be a hard link into the bundle being replaced
    if isinstance(content, bytes):
        target.write_bytes(content)
    else:
        shutil.copyfile(content, target)
