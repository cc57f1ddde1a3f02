"""The official layout of every published data set in miniature, and a web server that serves it."""

import contextlib
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from finedge.train.data import DATASETS

PER_CLASS = {"train": 4, "val": 2, "test": 2}


@dataclass
class Miniature:
    """Archives as {file: {path: bytes}} (a plain file: bytes), and the rows of each split.

    A row is the (path, label) that `get` should list.
    """

    files: dict
    labels: tuple
    splits: dict = field(default_factory=dict)


def jpeg(seed, side=24):
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC))[
        1
    ].tobytes()


def mat(**arrays):
    data = io.BytesIO()
    savemat(data, arrays)
    return data.getvalue()


def cells(texts):
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def structs(rows):
    """A MATLAB array of structures."""
    array = np.empty(len(rows), [(key, object) for key in rows[0]])
    for i, row in enumerate(rows):
        array[i] = tuple(row.values())
    return array


def numbered(splits, labels):
    """Yield (number from 1, split, label) of every image."""
    number = 0
    for split in splits:
        for label in range(len(labels)):
            for _ in range(PER_CLASS[split]):
                number += 1
                yield number, split, label


def cub200():
    labels = ("001.Crow", "002.Finch")
    images = [
        (n, s, c, f"{labels[c]}/{labels[c]}_{n}.jpg")
        for n, s, c in numbered(("train", "test"), labels)
    ]
    top = {
        "images.txt": "".join(f"{n} {path}\n" for n, _, _, path in images).encode(),
        "image_class_labels.txt": "".join(f"{n} {c + 1}\n" for n, _, c, _ in images).encode(),
        "train_test_split.txt": "".join(
            f"{n} {int(s == 'train')}\n" for n, s, _, _ in images
        ).encode(),
        "classes.txt": "".join(f"{i + 1} {label}\n" for i, label in enumerate(labels)).encode(),
        **{f"images/{path}": jpeg(n) for n, _, _, path in images},
    }
    files = {
        "CUB_200_2011.tgz": {
            "attributes.txt": b"1 has_bill_shape\n",
            **{f"CUB_200_2011/{k}": v for k, v in top.items()},
        }
    }
    return Miniature(
        files,
        labels,
        {
            w: [(f"CUB_200_2011/images/{p}", c) for _, s, c, p in images if s == w]
            for w in ("train", "test")
        },
    )


def cars():
    labels = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012")
    images = [(s, c, f"{n:05d}.jpg", n) for n, s, c in numbered(("train", "test"), labels)]
    lists = {
        split: mat(
            annotations=structs(
                [{"bbox_x1": 1, "class": c + 1, "fname": f} for s, c, f, _ in images if s == split]
            )
        )
        for split in ("train", "test")
    }
    files = {
        "cars_train.tgz": {f"cars_train/{f}": jpeg(n) for s, _, f, n in images if s == "train"},
        "cars_test.tgz": {f"cars_test/{f}": jpeg(n) for s, _, f, n in images if s == "test"},
        "car_devkit.tgz": {
            "devkit/cars_meta.mat": mat(class_names=cells(labels)),
            "devkit/cars_train_annos.mat": lists["train"],
        },
        "cars_test_annos_withlabels.mat": lists["test"],
    }
    return Miniature(
        files,
        labels,
        {w: [(f"cars_{s}/{f}", c) for s, c, f, _ in images if s == w] for w in ("train", "test")},
    )


def aircraft():
    labels, top = ("707-320", "737 MAX"), "fgvc-aircraft-2013b/data"
    images = [(s, c, f"{n:07d}", n) for n, s, c in numbered(("train", "val", "test"), labels)]
    names = {
        "variant": labels,
        "family": ("Boeing 707", "Boeing 737"),
        "manufacturer": ("Boeing", "Airbus"),
    }
    plural = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}
    content = {f"{top}/images/{f}.jpg": jpeg(n) for _, _, f, n in images}
    for level, level_names in names.items():
        content[f"{top}/{plural[level]}.txt"] = "\n".join(level_names).encode()
        for split in PER_CLASS:
            content[f"{top}/images_{level}_{split}.txt"] = "".join(
                f"{f} {level_names[c]}\n" for s, c, f, _ in images if s == split
            ).encode()
    return Miniature(
        {"fgvc-aircraft-2013b.tar.gz": content},
        labels,
        {w: [(f"{top}/images/{f}.jpg", c) for s, c, f, _ in images if s == w] for w in PER_CLASS},
    )


def dogs():
    labels, synsets = ("Chihuahua", "Shih-Tzu"), ("n02085620", "n02086240")
    images = [
        (s, c, f"{synsets[c]}-{labels[c]}/{synsets[c]}_{n}.jpg", n)
        for n, s, c in numbered(("train", "test"), labels)
    ]
    lists = {}
    for split in ("train", "test"):
        rows = [(f, c + 1) for s, c, f, _ in images if s == split]
        lists[f"{split}_list.mat"] = mat(
            file_list=cells([f for f, _ in rows]).reshape(-1, 1),
            labels=np.array([[c] for _, c in rows], np.uint8),
        )
    files = {
        "images.tar": {f"Images/{f}": jpeg(n) for _, _, f, n in images},
        "lists.tar": {"file_list.mat": lists["train_list.mat"], **lists},
    }
    return Miniature(
        files,
        labels,
        {w: [(f"Images/{f}", c) for s, c, f, _ in images if s == w] for w in ("train", "test")},
    )


def flowers102():
    labels = ("pink primrose", "hard-leaved pocket orchid")
    images = list(numbered(("test", "val", "train"), labels))
    ids = {
        key: np.array([n for n, s, _ in images if s == split])
        for key, split in (("trnid", "train"), ("valid", "val"), ("tstid", "test"))
    }
    files = {
        "102flowers.tgz": {f"jpg/image_{n:05d}.jpg": jpeg(n) for n, _, _ in images},
        "imagelabels.mat": mat(labels=np.array([c + 1 for _, _, c in images], np.uint8)),
        "setid.mat": mat(**ids),
    }
    return Miniature(
        files,
        labels,
        {w: [(f"jpg/image_{n:05d}.jpg", c) for n, s, c in images if s == w] for w in PER_CLASS},
    )


def food101():
    labels = ("apple_pie", "waffles")
    images = [(s, c, f"{labels[c]}/{n}", n) for n, s, c in numbered(("train", "test"), labels)]
    meta = {
        w: {
            label: [f for s, c, f, _ in images if s == w and labels[c] == label] for label in labels
        }
        for w in ("train", "test")
    }
    content = {
        "food-101/meta/classes.txt": "\n".join(labels).encode(),
        **{f"food-101/meta/{w}.json": json.dumps(m).encode() for w, m in meta.items()},
    }
    content |= {f"food-101/images/{f}.jpg": jpeg(n) for _, _, f, n in images}
    return Miniature(
        {"food-101.tar.gz": content},
        labels,
        {
            w: [(f"food-101/images/{f}.jpg", c) for s, c, f, _ in images if s == w]
            for w in ("train", "test")
        },
    )


def uecfood100():
    """Photo 9 shows both dishes, so it lies in both folders; in folder 1 it has two boxes."""
    labels = ("rice", "eels on rice")
    photos = {1: [1, 2, 3, 4, 5, 9], 2: [11, 12, 13, 14, 15, 9]}
    boxes = {
        c: [(p, 2, 2, 20, 22) for p in ps] + ([(9, 0, 0, 10, 99)] if c == 1 else [])
        for c, ps in photos.items()
    }
    content = {"UECFOOD100/category.txt": b"id\tname\n1\trice\n2\teels on rice\n"}
    for c, ps in photos.items():
        content |= {f"UECFOOD100/{c}/{p}.jpg": jpeg(p) for p in ps}
        content[f"UECFOOD100/{c}/bb_info.txt"] = (
            "img x1 y1 x2 y2\n" + "".join(" ".join(map(str, b)) + "\n" for b in boxes[c])
        ).encode()
    folds = {f: [f"UECFOOD100/{c}/{ps[f]}.jpg" for c, ps in photos.items()] for f in range(5)}
    folds[0] += ["UECFOOD100/1/9.jpg", "UECFOOD100/2/9.jpg"]
    split = {
        f"uecfood_split/uecfood100_split/val{f}.txt": "\n".join(rows).encode()
        for f, rows in folds.items()
    }
    splits = {
        "train": [],
        "test": [("crops/1/5_4.jpg", 0), ("crops/2/15_4.jpg", 1)],
    }  # the default fold is 4
    splits["train"] = [
        (f"crops/1/{p}_{i}.jpg", 0) for i, p in ((0, 1), (1, 2), (2, 3), (3, 4), (5, 9), (6, 9))
    ]
    splits["train"] += [
        (f"crops/2/{p}_{i}.jpg", 1) for i, p in ((0, 11), (1, 12), (2, 13), (3, 14), (5, 9))
    ]
    return Miniature({"dataset100.zip": content, "uecfood_split.zip": split}, labels, splits)


def adience():
    """Two faces of each of the eight groups a fold, plus rows that fit no group or no gender."""
    ages = (
        "(0, 2)",
        "(4, 6)",
        "(8, 12)",
        "(15, 20)",
        "(25, 32)",
        "(38, 43)",
        "(48, 53)",
        "(60, 100)",
    )
    labels = ("0-2", "4-6", "8-13", "15-20", "25-32", "38-43", "48-53", "60+")
    columns = "user_id original_image face_id age gender x y dx dy tilt_ang"
    header = "\t".join([*columns.split(), "fiducial_yaw_angle", "fiducial_score"]) + "\n"
    files, splits = {"aligned.tar.gz": {}}, {"train": [], "test": []}
    for fold in range(5):
        text = header
        for number, (age, gender) in enumerate(
            [(a, g) for a in ages for g in "fm"] + [("35", "f"), ("None", "m"), ("(0, 2)", "u")]
        ):
            user, image = f"{fold}@N03", f"{number}_o.jpg"
            text += f"{user}\t{image}\t{number}\t{age}\t{gender}\t0\t0\t24\t24\t0\t0\t10\n"
            path = f"aligned/{user}/landmark_aligned_face.{number}.{image}"
            files["aligned.tar.gz"][path] = jpeg(100 * fold + number)
            if age in ages:
                splits["test" if fold == 0 else "train"].append((path, ages.index(age)))
        files[f"fold_{fold}_data.txt"] = text.encode()
    return Miniature(files, labels, splits)


def cifar(folder, archive, names, batches, labels, prefix):
    """`prefix` stands before the label byte of every record (CIFAR-100: its coarse label)."""
    content, splits, count = (
        {f"{folder}/{names}": ("\n".join(labels) + "\n\n").encode()},
        {"train": [], "test": []},
        {"train": 0, "test": 0},
    )
    for seed, (split, file) in enumerate(batches):
        data = b""
        for label in [i for i in range(len(labels)) for _ in range(2)]:
            data += (
                prefix
                + bytes([label])
                + np.random.default_rng(seed).integers(0, 255, 3072, np.uint8).tobytes()
            )
            splits[split].append((f"png/{split}/{count[split]:05d}.png", label))
            count[split] += 1
        content[f"{folder}/{file}"] = data
    return Miniature({archive: content}, labels, splits)


def cifar10():
    batches = [*(("train", f"data_batch_{n}.bin") for n in range(1, 6)), ("test", "test_batch.bin")]
    return cifar(
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        "batches.meta.txt",
        batches,
        ("airplane", "automobile"),
        b"",
    )


def cifar100():
    batches = [("train", "train.bin"), ("test", "test.bin")]
    return cifar(
        "cifar-100-binary",
        "cifar-100-binary.tar.gz",
        "fine_label_names.txt",
        batches,
        ("apple", "aquarium_fish"),
        b"\x07",
    )


def grocery():
    labels, top = ("Golden-Delicious", "Kiwi"), "GroceryStoreDataset-master/dataset"
    images = [
        (s, c, f"{s}/Fruit/{labels[c]}/{labels[c]}_{n:03d}.jpg", n)
        for n, s, c in numbered(PER_CLASS, labels)
    ]
    content = {
        f"{top}/classes.csv": b"Class Name (str),Class ID (int),Coarse Class Name (str),"
        b"Coarse Class ID (int)\nGolden-Delicious,0,Apple,0\nKiwi,1,Kiwi,1\n"
    }
    content |= {
        f"{top}/{w}.txt": "".join(f"{f}, {c}, {c}\n" for s, c, f, _ in images if s == w).encode()
        for w in PER_CLASS
    }
    content |= {f"{top}/{f}": jpeg(n) for _, _, f, n in images}
    return Miniature(
        {"master.zip": content},
        labels,
        {w: [(f"{top}/{f}", c) for s, c, f, _ in images if s == w] for w in PER_CLASS},
    )


def imagenet():
    """The devkit numbers synsets against their order; labels must follow the sorted synsets."""
    synsets, words = (
        ("n01440764", "n01443537"),
        ("tench, Tinca tinca", "goldfish, Carassius auratus"),
    )
    labels = tuple(f"{s} {w}" for s, w in zip(synsets, words, strict=True))
    train = [(c, f"{synsets[c]}_{n}.JPEG", n) for n, s, c in numbered(("train",), labels)]
    val = [(c, f"ILSVRC2012_val_{n:08d}.JPEG", n) for n, c in enumerate((1, 0, 0, 1), 1)]
    leaves = [
        {
            "ILSVRC2012_ID": 2 - c,
            "WNID": synsets[c],
            "words": words[c],
            "gloss": "",
            "num_children": 0,
        }
        for c in (1, 0)
    ]
    devkit = {
        "meta.mat": mat(
            synsets=structs(
                [
                    *leaves,
                    {
                        "ILSVRC2012_ID": 3,
                        "WNID": "n00001740",
                        "words": "entity",
                        "gloss": "",
                        "num_children": 2,
                    },
                ]
            )
        ),
        "ILSVRC2012_validation_ground_truth.txt": "".join(f"{2 - c}\n" for c, _, _ in val).encode(),
    }
    files = {
        "ILSVRC2012_img_train.tar": {
            f"{s}.tar": pack("x.tar", {f: jpeg(n) for c, f, n in train if synsets[c] == s})
            for s in synsets
        },
        "ILSVRC2012_img_val.tar": {f: jpeg(100 + n) for _, f, n in val},
        "ILSVRC2012_devkit_t12.tar.gz": {
            f"ILSVRC2012_devkit_t12/data/{k}": v for k, v in devkit.items()
        },
    }
    return Miniature(
        files,
        labels,
        {
            "train": [(f"train/{synsets[c]}/{f}", c) for c, f, _ in train],
            "test": [(f"val/{f}", c) for c, f, _ in val],
        },
    )


BUILDERS = {
    b.__name__: b
    for b in (
        cub200,
        cars,
        aircraft,
        dogs,
        flowers102,
        food101,
        uecfood100,
        adience,
        cifar10,
        cifar100,
        grocery,
        imagenet,
    )
}


def pack(name, content):
    """The bytes of a tar or zip of {path: bytes}; a plain file is its bytes."""
    if isinstance(content, bytes):
        return content
    data = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(data, "w") as archive:
            for path, file in content.items():
                archive.writestr(path, file)
        return data.getvalue()
    with tarfile.open(fileobj=data, mode="w" if name.endswith(".tar") else "w:gz") as archive:
        for path, file in content.items():
            member = tarfile.TarInfo(path)
            member.size = len(file)
            archive.addfile(member, io.BytesIO(file))
    return data.getvalue()


@pytest.fixture(scope="session")
def miniature():
    """The miniature of a data set, built once."""
    made = {}

    def build(name):
        assert name in BUILDERS, (
            f"tests/train/data/conftest.py has no builder of {name}'s official layout"
        )
        return made.setdefault(name, BUILDERS[name]())

    return build


class Server:
    """Serves `files` ({name: bytes}) on loopback and remembers what was asked for.

    A name in `cut` loses its last bytes, one in `moved` is redirected, one in `endless` announces
    no length and does not end.
    """

    def __init__(self):
        self.files, self.asked, self.cut, self.moved, self.endless = {}, [], set(), {}, set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = Path(self.path).name
                outer.asked.append(name)
                if name in outer.moved:
                    self.send_response(302)
                    self.send_header("Location", outer.moved[name])
                    self.end_headers()
                    return
                if name not in outer.files:
                    self.send_error(404)
                    return
                self.send_response(200)
                if name not in outer.endless:
                    self.send_header("Content-Length", str(len(outer.files[name])))
                self.end_headers()
                with contextlib.suppress(OSError):
                    while name in outer.endless:
                        self.wfile.write(outer.files[name] * 10_000)
                self.wfile.write(outer.files[name][: -10 if name in outer.cut else None])

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture(scope="session")
def running_server():
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def server(running_server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running_server.files, running_server.asked, running_server.cut = {}, [], set()
    running_server.moved, running_server.endless = {}, set()
    return running_server


@pytest.fixture
def publish(server, miniature, monkeypatch):
    """Put a miniature on the server and into the registry, with its own digests and counts."""

    def put(name, *, counts=None):
        small, official = miniature(name), DATASETS[name]
        packed = {file: pack(file, content) for file, content in small.files.items()}
        server.files |= packed
        archives = tuple(
            replace(
                a,
                url=f"{server.address}/{a.file}" if a.url else "",
                digest=f"md5:{hashlib.md5(packed[a.file]).hexdigest()}" if a.digest else "",
            )
            for a in official.archives
        )
        own = {"classes": len(small.labels), **{s: len(rows) for s, rows in small.splits.items()}}
        monkeypatch.setitem(
            DATASETS,
            name,
            replace(official, archives=archives, counts={"": own} if counts is None else counts),
        )
        return small

    return put
