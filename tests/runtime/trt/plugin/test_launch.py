"""The arithmetic of a launch.

The C++ plugin is compared with the same table `plans.json`; `python test_launch.py` writes it.
"""

import ctypes
import itertools
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finedge.errors import UsageError
from finedge.runtime.trt.plugin.launch import (
    FORMATS,
    INT8,
    SEPARATE,
    SHARED,
    AttentionShape,
    Map,
    MapLayout,
    is_readable,
    kernel_for,
    plan,
    workspace_bound,
)

TABLE = Path(__file__).parent / "plans.json"
# Positions at 224 and 448 pixels (layer4, layer3, layer2) and odd ones. Processors of Orin Nano,
# AGX Orin, Thor, RTX 4090, H200 and more than any has.
GRIDS = [(1, 1), (4, 16), (49, 196), (49, 784), (196, 784), (196, 3136)]
HEADS = [
    (1, 1, False),
    (64, 64, False),
    (65, 96, False),
    (256, 256, True),
    (257, 257, True),
    (320, 512, False),
    (512, 512, True),
    (1024, 1024, True),
]
PROCESSORS = [8, 16, 20, 128, 132, 300]
RESIDENTS = [1, 2, 3, 4, 8]


def cases():
    """40 of all combinations, each value of each list among them."""
    for i, ((queries, keys), (d, dv, shared)) in enumerate(
        [*itertools.product(GRIDS[2:], HEADS), *itertools.product(GRIDS[:2], HEADS[:4])]
    ):
        processors, batch = PROCESSORS[i % len(PROCESSORS)], (1, 2, 8, 32)[i // 3 % 4]
        resident = RESIDENTS[i % len(RESIDENTS)]
        yield {
            "queries": queries,
            "keys": keys,
            "d": d,
            "dv": dv,
            "shared": shared,
            "batch": batch,
            "processors": processors,
            "resident": resident,
        }


def maps():
    for (form, kind), channels, positions in itertools.product(FORMATS, (24, 33, 512), (1, 49)):
        readable = is_readable(form, kind=kind, channels=channels, positions=positions)
        layout = (
            asdict(MapLayout.of(form, kind=kind, channels=channels, positions=positions))
            if readable
            else None
        )
        yield {
            "form": form,
            "kind": kind,
            "channels": channels,
            "positions": positions,
            "layout": layout,
        }


def bound_of(case):
    """Return the workspace of an engine whose largest shape this is; it knows no GPU."""
    gpu = ("processors", "resident")
    return workspace_bound(**{name: value for name, value in case.items() if name not in gpu})


def table():
    plans = [
        {
            **c,
            **asdict(plan(**c)),
            "workspace_bound": bound_of(c),
        }
        for c in cases()
    ]
    return {"plans": plans, "maps": list(maps())}


def test_the_structs_have_the_size_the_kernel_was_compiled_with():
    assert ctypes.sizeof(Map) == 40
    assert ctypes.sizeof(AttentionShape) == 200
    assert (
        AttentionShape.partial.offset,
        AttentionShape.queries.offset,
        AttentionShape.scale.offset,
    ) == (160, 168, 192)


def test_the_table_of_plans_still_holds():
    assert json.loads(TABLE.read_text()) == json.loads(json.dumps(table()))


def ranges(launch, keys):
    """Return the tiles of each block of a query tile, as the kernel computes them."""
    kernel = next(k for k in (*SEPARATE, *SHARED) if k.name == launch.kernel)
    tiles = -(-keys // kernel.keys)
    run = -(-tiles // launch.splits)
    return [range(s * run, min((s + 1) * run, tiles)) for s in range(launch.splits)], tiles


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_every_split_has_a_key_and_all_keys_are_taken(case):
    parts, tiles = ranges(plan(**case), case["keys"])
    assert all(parts)
    assert sorted(t for part in parts for t in part) == list(range(tiles))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(*[st.integers(1, most) for most in (400, 6400, 1024, 64)]),
    smaller=st.tuples(*[st.floats(0.01, 1) for _ in range(3)]),
    gpu=st.fixed_dictionaries({"processors": st.integers(1, 1000), "resident": st.integers(1, 32)}),
)
def test_the_workspace_is_enough_for_every_smaller_shape_on_every_gpu(sizes, smaller, gpu):
    queries, keys, channels, batch = sizes
    head = {"d": channels, "dv": channels, "shared": True}
    bound = workspace_bound(queries=queries, keys=keys, batch=batch, **head)
    less = [math.ceil(n * share) for n, share in zip((queries, keys, batch), smaller, strict=True)]
    shape = dict(zip(("queries", "keys", "batch"), less, strict=True))
    launch = plan(**shape, **head, **gpu)
    assert launch.workspace_bytes <= bound <= 32 << 20
    parts, tiles = ranges(launch, shape["keys"])
    assert all(parts)
    assert sum(map(len, parts)) == tiles


def test_a_launch_that_is_not_split_needs_no_workspace():
    sizes = {"queries": 49, "d": 64, "dv": 64, "shared": False, "batch": 64}
    launch = plan(**sizes, keys=3136, processors=8, resident=4)
    assert (launch.splits, launch.workspace_bytes, launch.combine_grid) == (1, 0, None)
    assert workspace_bound(**sizes, keys=SEPARATE[0].keys) == 0


@pytest.mark.parametrize(
    ("d", "dv", "shared", "name"),
    [
        (64, 64, False, "cla_64"),
        (1, 65, False, "cla_128"),
        (256, 256, True, "cla_256"),
        (257, 1, False, "cla_512"),
        (264, 264, True, "cla_shared_512"),
        (513, 513, True, "cla_shared_1024"),
    ],
)
def test_the_smallest_kernel_that_holds_the_channels_is_taken(d, dv, shared, name):
    assert kernel_for(d=d, dv=dv, shared=shared).name == name


@pytest.mark.parametrize(("d", "shared", "most"), [(513, False, 512), (1025, True, 1024)])
def test_more_channels_than_any_kernel_holds_name_the_way_out(d, shared, most):
    with pytest.raises(
        UsageError, match=rf"(?s)over {d} channels.*at most {most}.*--attention decomposed"
    ):
        kernel_for(d=d, dv=d, shared=shared)


def test_every_kernel_fits_99_kib_of_shared_memory():
    """sm_86, sm_89 and sm_120 have no more for one block."""
    assert all(kernel.shared_bytes <= 99 * 1024 for kernel in (*SEPARATE, *SHARED))


def stored(values, form):
    """Lay [B, C, H, W] out by hand; return the flat memory, padding marked with -1."""
    b, c, h, w = values.shape
    if form == "LINEAR":
        return values.reshape(-1)
    if form == "HWC":
        return values.transpose(0, 2, 3, 1).reshape(-1)
    size = {"HWC8": 8, "CHW32": 32}[form]
    padded = np.full((b, -(-c // size) * size, h, w), -1, values.dtype)
    padded[:, :c] = values
    if form == "HWC8":
        return padded.transpose(0, 2, 3, 1).reshape(-1)
    return padded.reshape(b, -1, size, h, w).transpose(0, 1, 3, 4, 2).reshape(-1)


@pytest.mark.parametrize(("form", "kind"), FORMATS)
@pytest.mark.parametrize("channels", [8, 40, 33])
def test_the_strides_lead_to_the_element(form, kind, channels):
    values = np.arange(2 * channels * 3 * 5).reshape(2, channels, 3, 5)
    if not is_readable(form, kind=kind, channels=channels, positions=15):
        assert (form, channels) == ("HWC", 33)
        return
    layout = MapLayout.of(form, kind=kind, channels=channels, positions=15)
    b, c, t = np.meshgrid(range(2), range(channels), range(15), indexing="ij")
    address = b * layout.batch + t * layout.token + c // 32 * layout.group + c % 32 * layout.channel
    np.testing.assert_array_equal(stored(values, form)[address], values.reshape(2, channels, 15))
    eight = (
        1 if layout.channel > 1 else 8
    )  # what neighbouring channels promise: whole, aligned groups
    assert {layout.batch % eight, layout.token % eight, layout.group % eight} == {0}


@pytest.mark.parametrize(
    ("form", "kind", "positions"),
    [("CHW4", INT8, 9), ("HWC8", INT8, 9), ("LINEAR", 0, 1), ("HWC", 0, 9)],
)
def test_a_format_the_kernel_cannot_read_is_refused(form, kind, positions):
    with pytest.raises(UsageError, match="12 channels"):
        MapLayout.of(form, kind=kind, channels=12, positions=positions)


if __name__ == "__main__":
    TABLE.write_text(json.dumps(table(), indent=None).replace("}, {", "},\n{") + "\n")
