import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from finedge.data import open_dataset
from finedge.errors import DataError, SystemProblem, UsageError
from finedge.image import read_image
from finedge.train.data import DATASETS, archive, download
from finedge.train.data.base import Archive
from finedge.train.data.command import datasets, get
from finedge.train.data.download import is_vouched

OPTIONS = [
    (name, f"{key}={value}")
    for name, d in DATASETS.items()
    for key, values in d.options.items()
    for value in values
]


def listed(folder, split):
    with (folder / f"{split}.csv").open(newline="") as file:
        return [(path, int(label)) for path, label in csv.reader(file)]


def fetch(name, out, server, **options):
    """`get` from the official addresses where there are any, and from the mirror otherwise."""
    return get(name, out, mirror="" if DATASETS[name].downloadable() else server.address, **options)


@pytest.mark.parametrize("name", DATASETS)
def test_get_lists_the_official_split_and_open_dataset_reads_it(name, tmp_path, server, publish):
    small = publish(name)
    answer = fetch(name, tmp_path, server)
    assert (
        answer["counts"].items()
        >= {"classes": len(small.labels), **{s: len(r) for s, r in small.splits.items()}}.items()
    )
    assert {split: sorted(listed(tmp_path, split)) for split in small.splits} == {
        split: sorted(rows) for split, rows in small.splits.items()
    }
    data = open_dataset(tmp_path)
    assert (data.layout, data.labels) == ("lists", small.labels)
    found = {
        split: {(i.path.relative_to(tmp_path).as_posix(), i.label) for i in items}
        for split, items in data.splits.items()
    }
    assert found["test"] == set(small.splits["test"])
    assert found["train"] | found["val"] == set(small.splits["train"]) | set(
        small.splits.get("val", ())
    )
    assert all(read_image(i.path).ndim == 3 for i in data.split("test"))


@pytest.mark.parametrize("name", DATASETS)
def test_nothing_is_fetched_or_changed_twice(name, tmp_path, server, publish):
    publish(name)
    first = fetch(name, tmp_path, server)
    asked, before = (
        list(server.asked),
        {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()},
    )
    assert fetch(name, tmp_path, server) == first
    assert server.asked == asked
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", DATASETS)
def test_what_the_user_put_there_needs_no_address(name, tmp_path, server, publish):
    publish(name)
    for file in DATASETS[name].archives:
        (tmp_path / file.file).write_bytes(server.files[file.file])
    get(name, tmp_path)
    assert server.asked == []


@pytest.mark.parametrize("name", DATASETS)
def test_other_counts_than_the_official_ones_are_refused(name, tmp_path, server, publish):
    official = DATASETS[name].counts
    publish(name, counts={"": {"test": 12345, **official.get("", {})}})
    with pytest.raises(DataError, match=r"has .*\d+ (test|listed)") as refused:
        fetch(name, tmp_path, server)
    assert str(official.get("", {}).get("test", 12345)) in refused.value.expected
    assert not (tmp_path / "train.csv").exists()


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_gives_a_data_set(name, option, tmp_path, server, publish):
    publish(name, counts={})
    answer = fetch(name, tmp_path, server, option=(option,))
    key, _, value = option.partition("=")
    assert answer["options"][key] == value
    data = open_dataset(tmp_path)
    assert len(data.labels) == answer["counts"]["classes"]
    assert data.split("train")
    assert data.split("test")


def test_another_option_rewrites_the_lists_and_fetches_nothing(tmp_path, server, publish):
    publish("aircraft", counts={})
    get("aircraft", tmp_path)
    asked = list(server.asked)
    get("aircraft", tmp_path, option=("level=manufacturer",))
    assert open_dataset(tmp_path).labels == ("Boeing", "Airbus")
    assert server.asked == asked


@pytest.mark.parametrize("fold", "01234")
def test_the_five_folds_share_no_image_and_cover_all(fold, tmp_path, server, publish):
    publish("adience", counts={})
    fetch("adience", tmp_path, server, option=(f"fold={fold}",))
    train, test = listed(tmp_path, "train"), listed(tmp_path, "test")
    assert {path.split("/")[1] for path, _ in test} == {f"{fold}@N03"}
    assert not set(train) & set(test)
    assert len(train) + len(test) == 85


def test_adience_leaves_out_ages_of_no_group_and_unknown_gender(tmp_path, server, publish):
    publish("adience", counts={})
    assert (
        fetch("adience", tmp_path, server)["counts"].items() >= {"listed": 95, "images": 85}.items()
    )  # 35 and None
    assert (
        fetch("adience", tmp_path, server, option=("task=gender",))["counts"].items()
        >= {"listed": 95, "images": 90, "classes": 2}.items()
    )  # u


def test_uecfood_crops_are_the_boxes_clipped_to_the_photo(tmp_path, server, publish):
    publish("uecfood100", counts={})
    fetch("uecfood100", tmp_path, server)
    assert read_image(tmp_path / "crops" / "1" / "5_4.jpg").shape == (20, 18, 3)
    assert read_image(tmp_path / "crops" / "1" / "9_6.jpg").shape == (24, 10, 3)


def test_uecfood_whole_leaves_out_photos_of_several_dishes(tmp_path, server, publish):
    publish("uecfood100", counts={})
    fetch("uecfood100", tmp_path, server, option=("view=whole",))
    paths = [path for split in ("train", "test") for path, _ in listed(tmp_path, split)]
    assert len(paths) == 10
    assert not [p for p in paths if p.endswith("/9.jpg")]


def test_cifar_pixels_are_the_planes_of_the_record(tmp_path, server, publish):
    small = publish("cifar100")
    get("cifar100", tmp_path)
    record = np.frombuffer(
        small.files["cifar-100-binary.tar.gz"]["cifar-100-binary/test.bin"], np.uint8
    )
    np.testing.assert_array_equal(
        read_image(tmp_path / "png" / "test" / "00000.png"),
        record[2:3074].reshape(3, 32, 32).transpose(1, 2, 0),
    )


def test_imagenet_takes_a_sorted_val_folder_and_no_devkit(tmp_path, server, publish, miniature):
    publish("imagenet")
    image = miniature("imagenet").files["ILSVRC2012_img_val.tar"]["ILSVRC2012_val_00000001.JPEG"]
    for synset in ("n01440764", "n01443537"):
        for split, names in (("train", "abcd"), ("val", "ef")):
            (tmp_path / split / synset).mkdir(parents=True)
            for name in names:
                (tmp_path / split / synset / f"{name}.JPEG").write_bytes(image)
    get("imagenet", tmp_path)
    assert open_dataset(tmp_path).labels == ("n01440764", "n01443537")


def test_merge_val_adds_the_val_split_to_train(tmp_path, server, publish):
    small = publish("flowers102")
    get("flowers102", tmp_path)
    assert (tmp_path / "val.csv").exists()
    get("flowers102", tmp_path, merge_val=True)
    assert set(listed(tmp_path, "train")) == {*small.splits["train"], *small.splits["val"]}
    assert not (tmp_path / "val.csv").exists()


def test_merge_val_without_a_val_split_is_refused(tmp_path, server, publish):
    publish("cub200")
    with pytest.raises(UsageError, match="without a val split"):
        get("cub200", tmp_path, merge_val=True)


def test_the_record_says_where_everything_comes_from(tmp_path, server, publish):
    publish("aircraft")
    get("aircraft", tmp_path)
    record = json.loads((tmp_path / "dataset.json").read_text())
    digest = "md5:" + hashlib.md5(server.files["fgvc-aircraft-2013b.tar.gz"]).hexdigest()
    assert record["archives"] == [
        {
            "file": "fgvc-aircraft-2013b.tar.gz",
            "url": f"{server.address}/fgvc-aircraft-2013b.tar.gz",
            "digest": digest,
        }
    ]
    assert record["verified"] == ["fgvc-aircraft-2013b.tar.gz"]
    assert (record["name"], record["terms"], record["options"]) == (
        "aircraft",
        "non-commercial research only",
        {"level": "variant", "merge_val": False},
    )


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, d in DATASETS.items() if not d.downloadable()])
def test_archives_without_an_address_are_all_named_first(name, tmp_path, publish):
    publish(name)
    with pytest.raises(DataError) as refused:
        get(name, tmp_path)
    assert all(a.file in refused.value.what for a in DATASETS[name].archives)
    assert DATASETS[name].homepage in refused.value.fix
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_archive_of_the_user_is_refused_and_kept(tmp_path, server, publish):
    publish("aircraft")
    file = tmp_path / "fgvc-aircraft-2013b.tar.gz"
    file.write_bytes(b"half a download")
    with pytest.raises(DataError, match=r"fgvc-aircraft-2013b\.tar\.gz has md5") as refused:
        get("aircraft", tmp_path)
    assert "delete" in refused.value.fix
    assert file.read_bytes() == b"half a download"
    assert server.asked == []


def test_an_address_that_serves_something_else_leaves_nothing(tmp_path, server, publish):
    publish("aircraft")
    server.files["fgvc-aircraft-2013b.tar.gz"] = b"<html>moved</html>"
    with pytest.raises(DataError, match="md5"):
        get("aircraft", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["dogs", "aircraft"])
def test_a_body_that_is_cut_off_leaves_nothing(name, tmp_path, server, publish):
    publish(name)
    server.cut = set(server.files)
    with pytest.raises(SystemProblem, match="cannot fetch") as refused:
        get(name, tmp_path)
    assert "--mirror" in refused.value.fix
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_gone_says_what_to_do(tmp_path, server, publish):
    publish("dogs")
    server.files.clear()
    with pytest.raises(SystemProblem, match="404") as refused:
        get("dogs", tmp_path)
    assert "images.tar" in refused.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["grocery", "uecfood100"])
def test_an_archive_cut_off_that_has_no_digest_is_refused(name, tmp_path, server, publish):
    publish(name)
    file = DATASETS[name].archives[0].file
    (tmp_path / file).write_bytes(server.files[file][: len(server.files[file]) // 2])
    with pytest.raises(DataError, match="cannot be unpacked"):
        get(name, tmp_path, mirror=server.address)
    assert [p.name for p in tmp_path.iterdir()] == [file]


def test_an_unpacking_that_was_killed_is_done_again(tmp_path, server, publish):
    publish("cub200")
    (tmp_path / ".CUB_200_2011.tgz.new-x0123abcd" / "CUB_200_2011").mkdir(parents=True)
    # Version 0.1 left these.
    (tmp_path / ".CUB_200_2011.tgz.unpacking" / "CUB_200_2011").mkdir(parents=True)
    (tmp_path / ".CUB_200_2011.tgz.part").write_bytes(b"half")
    (tmp_path / "attributes.txt").write_bytes(
        b"1 has_bill_shape\n"
    )  # renamed into place before the kill
    get("cub200", tmp_path)
    assert open_dataset(tmp_path).split("test")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("mine", ["file", "folder", "link", "link to nothing"])
def test_what_the_user_has_is_never_replaced(mine, tmp_path, server, publish):
    publish("cub200")
    place, other = tmp_path / "out" / "attributes.txt", tmp_path / "mine"
    place.parent.mkdir()
    other.write_text("mine")
    if mine == "file":
        place.write_text("mine")
    elif mine == "folder":
        place.mkdir()
    else:
        place.symlink_to(other if mine == "link" else tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"attributes\.txt is in the way"):
        get("cub200", place.parent)
    assert other.read_text() == "mine"
    assert (
        place.is_dir() if mine == "folder" else (place.is_symlink() or place.read_text() == "mine")
    )
    assert not list(place.parent.glob(".*"))


def test_a_folder_that_a_killed_run_placed_is_taken_if_it_is_the_same(tmp_path, server, publish):
    publish("flowers102")
    get("flowers102", tmp_path)
    archive_ = next(a for a in DATASETS["flowers102"].archives if a.holds == "jpg")
    archive.unpack(archive_, root=tmp_path)
    one = next((tmp_path / "jpg").iterdir())
    one.write_bytes(b"changed by the user")
    with pytest.raises(DataError, match="jpg is in the way"):
        archive.unpack(archive_, root=tmp_path)
    assert one.read_bytes() == b"changed by the user"


@pytest.mark.parametrize("list_", ["train.csv", "val.csv", "test.csv", "classes.csv"])
def test_a_list_of_the_user_is_never_replaced(list_, tmp_path, server, publish):
    publish("cub200")
    (tmp_path / list_).write_text("mine")
    with pytest.raises(DataError, match=list_):
        get("cub200", tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(list_, "mine")]


@pytest.mark.parametrize(
    "record",
    [
        "",
        "[]",
        '{"name": 3}',
        '{"name": "cub200", "verified": 5}',
        "[" * 100_000,
        '{"name": "cub200", "name": "x"}',
    ],
)
def test_a_foreign_record_is_refused(record, tmp_path, publish):
    publish("cub200")
    (tmp_path / "dataset.json").write_text(record)
    with pytest.raises(DataError, match=r"dataset\.json"):
        get("cub200", tmp_path)


@pytest.mark.parametrize("name", DATASETS)
def test_every_address_without_tls_has_a_digest(name):
    assert all(is_vouched(a.url) or a.digest for a in DATASETS[name].archives if a.url)


@pytest.mark.parametrize(
    ("url", "vouched"),
    [
        ("https://host/x", True),
        ("HTTPS://host/x", True),
        ("file:///x", True),
        ("http://127.0.0.1:8000/x", True),
        ("http://[::1]/x", True),
        ("http://localhost/x", True),
        ("http://host/x", False),
        ("http://localhost.host/x", False),
        ("http://127.0.0.1@host/x", False),
        ("ftp://host/x", False),
        ("data:,x", False),
    ],
)
def test_only_https_or_this_machine_is_believed_without_a_digest(url, vouched, tmp_path):
    assert is_vouched(url) == vouched
    if not vouched:
        with pytest.raises(SystemProblem, match="nothing vouches"):
            archive.fetch(url, file=tmp_path / "x")
        assert list(tmp_path.iterdir()) == []


def test_a_mirror_without_tls_is_refused_where_there_is_no_digest(tmp_path, publish):
    publish("grocery")
    with pytest.raises(SystemProblem, match="nothing vouches for http://mirror"):
        get("grocery", tmp_path, mirror="http://mirror.example")


def test_a_redirect_to_http_is_not_followed_without_a_digest(tmp_path, server):
    server.moved = {"x": "http://elsewhere.example/x", "y": f"{server.address}/z"}
    server.files = {"z": b"content"}
    with pytest.raises(SystemProblem, match="nothing vouches for http://elsewhere"):
        archive.fetch(f"{server.address}/x", file=tmp_path / "x")
    archive.fetch(f"{server.address}/y", file=tmp_path / "y")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("y", b"content")]


def test_more_than_the_disk_holds_is_refused_before_it_comes(tmp_path, server, monkeypatch):
    server.files = {"x": b"content" * 1000}
    monkeypatch.setattr(
        download.shutil,
        "disk_usage",
        lambda _: shutil._ntuple_diskusage(10**9, 10**9, download.RESERVE + 6999),
    )
    with pytest.raises(SystemProblem, match="free; the download needs"):
        archive.fetch(f"{server.address}/x", file=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_stream_without_an_end_leaves_room_on_the_disk(tmp_path, server, monkeypatch):
    server.files, server.endless = {"x": b"content"}, {"x"}
    left = iter([download.RESERVE + 10**7, download.RESERVE + 10**7, 0])
    monkeypatch.setattr(
        download.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, next(left))
    )
    with pytest.raises(SystemProblem, match=r"nearly full|has 0 MiB free"):
        archive.fetch(f"{server.address}/x", file=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def evil(kind, path):
    data = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(data, "w") as packed:
            packed.writestr(path, b"evil")
    else:
        with tarfile.open(fileobj=data, mode="w") as packed:
            packed.addfile(tarfile.TarInfo(path))
    return data.getvalue()


def test_an_archive_that_wants_a_password_is_refused(tmp_path):
    data = bytearray(evil("zip", "inside"))
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + at] |= 1  # the flag of an encrypted member
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DataError, match="cannot be unpacked"):
        archive.unpack(Archive("x.zip", holds="inside"), root=tmp_path)


@pytest.mark.parametrize(
    ("kind", "path"),
    [("tar", "../outside"), ("zip", "../outside"), ("zip", "/outside"), ("zip", "..\\outside")],
)
def test_an_archive_that_writes_outside_is_refused(kind, path, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"x.{kind}").write_bytes(evil(kind, path))
    with pytest.raises(DataError, match="cannot be unpacked"):
        archive.unpack(Archive(f"x.{kind}", holds="images"), root=tmp_path / "in")
    assert [p.name for p in tmp_path.rglob("*")] == ["in", f"x.{kind}"]


def test_an_archive_without_what_it_should_hold_is_refused(tmp_path, server, publish):
    publish("grocery")
    (tmp_path / "master.zip").write_bytes(evil("zip", "README.md"))
    with pytest.raises(DataError, match="holds no 'GroceryStoreDataset-master'"):
        get("grocery", tmp_path)


def test_a_listed_image_that_is_missing_is_named(tmp_path, server, publish):
    publish("grocery")
    get("grocery", tmp_path)
    path, _ = listed(tmp_path, "test")[0]
    (tmp_path / path).unlink()
    with pytest.raises(DataError, match="1 listed images are not in") as refused:
        get("grocery", tmp_path)
    assert path in refused.value.what


def test_lists_that_cannot_be_read_are_named(tmp_path, server, publish):
    publish("food101")
    get("food101", tmp_path)
    (tmp_path / "food-101" / "meta" / "train.json").write_text("{")
    with pytest.raises(DataError, match="lists of Food-101"):
        get("food101", tmp_path)


def test_foreign_lists_are_refused_and_kept(tmp_path, publish):
    publish("cub200")
    (tmp_path / "train.csv").write_text("mine.jpg,0\n")
    with pytest.raises(DataError, match="did not write"):
        get("cub200", tmp_path)
    assert (tmp_path / "train.csv").read_text() == "mine.jpg,0\n"


def test_the_folder_of_another_data_set_is_refused(tmp_path, server, publish):
    publish("cub200")
    publish("dogs")
    get("cub200", tmp_path)
    with pytest.raises(DataError, match="holds the data set 'cub200'"):
        get("dogs", tmp_path)


def test_a_kill_between_two_lists_leaves_no_data_set(tmp_path, server, publish, monkeypatch):
    publish("flowers102")
    get("flowers102", tmp_path)

    def full(path, text):
        if path.name == "test.csv":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("finedge.train.data.build.write_text", full)
    with pytest.raises(OSError, match="No space"):
        get("flowers102", tmp_path, merge_val=True)
    assert not (tmp_path / "train.csv").exists()


def test_an_unknown_data_set_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'flowers102'"):
        get("flower102", "out")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("lvel=family", "did you mean 'level'"),
        ("level=airline", "one of variant, family"),
        ("family", "known: level"),
    ],
)
def test_an_unknown_option_is_answered_with_the_known_ones(option, text, tmp_path):
    with pytest.raises(UsageError, match=text):
        get("aircraft", tmp_path, option=(option,))


def test_a_mirror_that_is_no_address_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--mirror is 'here'"):
        get("dogs", tmp_path, mirror="here")


# --- the registry ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_every_record_is_complete(name):
    official = DATASETS[name]
    assert official.title
    assert official.terms
    assert official.homepage.startswith("http")
    assert all(a.url.startswith("http") for a in official.archives if a.url)
    assert all(
        len(a.digest) == {"md5": 36, "sha256": 71}[a.digest.partition(":")[0]]
        for a in official.archives
        if a.digest
    )
    assert "classes" in official.expected(
        {key: values[0] for key, values in official.options.items()}
    )


def test_the_list_names_every_data_set_as_json():
    entries = json.loads(json.dumps(datasets()))["datasets"]
    assert [e["name"] for e in entries] == list(DATASETS)
    assert {e["name"] for e in entries if not e["download"]} == {
        "cars",
        "adience",
        "imagenet",
        "uecfood100",
    }


def test_the_real_grocery_store_has_the_official_counts(tmp_path, shared_data):
    (tmp_path / "GroceryStoreDataset-master").mkdir()
    (tmp_path / "GroceryStoreDataset-master" / "dataset").symlink_to(shared_data / "grocery240")
    assert get("grocery", tmp_path)["counts"] == {
        "classes": 81,
        "train": 2640,
        "val": 296,
        "test": 2485,
        "images": 5421,
        "listed": 5421,
    }
    dataset, expected = open_dataset(tmp_path), open_dataset(shared_data / "grocery240")
    assert dataset.labels == expected.labels
    assert [(i.path.resolve(), i.label) for i in dataset.split("test")] == [
        (i.path.resolve(), i.label) for i in expected.split("test")
    ]
    assert get("grocery", tmp_path, option=("level=coarse",))["counts"]["classes"] == 43


def test_the_command_line_fetches_from_a_mirror_and_checks_counts(tmp_path, server, publish):
    publish("grocery")
    words = ["data", "get", "grocery", str(tmp_path / "grocery"), "--mirror", server.address]
    done = subprocess.run(
        [sys.executable, "-m", "finedge", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert "4 test, 2 classes" in done.stderr
    assert done.stdout == ""


def test_without_scipy_the_answer_names_the_extra(tmp_path, server, publish, monkeypatch):
    publish("dogs")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(SystemProblem, match="scipy"):
        get("dogs", tmp_path)


def test_a_digest_is_compared_with_the_whole_file(tmp_path):
    (tmp_path / "x").write_bytes(b"x" * (archive.CHUNK + 1))
    digest = "md5:" + hashlib.md5(b"x" * (archive.CHUNK + 1)).hexdigest()
    archive.verify(tmp_path / "x", digest=digest, fix="")
    with pytest.raises(DataError, match="md5"):
        archive.verify(tmp_path / "x", digest=digest[:-1] + "g", fix="")


def test_an_option_of_counts_overrides_nothing_but_its_own():
    assert DATASETS["aircraft"].expected({"level": "family"}) == {
        "train": 3334,
        "val": 3333,
        "test": 3333,
        "classes": 70,
    }
