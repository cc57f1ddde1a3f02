from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import pytest

from finedge.errors import DataError
from finedge.schema import Count, Digest, Misfit, PlainName, Share, at_most, between, decode


@dataclass(frozen=True)
class Inner:
    share: Share
    kind: Literal["a", "b"] = "a"


class Loose(TypedDict):
    name: str


@dataclass(frozen=True)
class Outer:
    count: Count
    pair: tuple[int, float]
    inner: Inner
    loose: Loose
    many: Annotated[tuple[Inner, ...], at_most(2)] = ()
    files: Mapping[PlainName, Digest] | None = None
    side: Annotated[int, between(1, 9, unit="pixels")] | str = 1
    free: Any = None

    def __post_init__(self) -> None:
        if self.count == 13:
            raise DataError("13", expected="no 13")


GOOD: dict[str, Any] = {
    "count": 1,
    "pair": [1, 2],
    "inner": {"share": 1},
    "loose": {"name": "x"},
    "many": [{"share": 0.5, "kind": "b"}],
    "files": {"a.onnx": "0" * 64},
    "side": "all",
    "free": {"x": [1]},
}


def test_data_becomes_its_type() -> None:
    made = decode(Outer, GOOD)
    assert made.pair == (1, 2.0)
    assert isinstance(made.pair[1], float)
    assert made.inner == Inner(1.0)
    assert made.many == (Inner(0.5, "b"),)
    assert made.free == {"x": [1]}
    assert decode(Outer, {**GOOD, "files": None, "side": 9}).side == 9


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a bool is no int": ({"count": True}, "count", "a whole number"),
    "an int out of range": ({"count": -1}, "count", "0 to 1e+12"),
    "a float is no int": ({"count": 1.0}, "count", "a whole number"),
    "too few": ({"pair": [1]}, "pair", "a list of 2"),
    "a text is no list": ({"pair": "12"}, "pair", "a list"),
    "a member": ({"pair": [1, "2"]}, "pair[1]", "a number"),
    "a field of a record": ({"inner": {"share": 1.5}}, "inner.share", "0 to 1"),
    "a missing field": ({"inner": {}}, "inner.share", "it is missing"),
    "no record": ({"inner": []}, "inner", "an object with share, kind"),
    "no literal": ({"inner": {"share": 1, "kind": "c"}}, "inner.kind", "one of 'a', 'b'"),
    "a typed dict": ({"loose": {}}, "loose.name", "it is missing"),
    "too many": ({"many": [{"share": 1}] * 3}, "many", "at most 2 members"),
    "in a list": ({"many": [{"share": 1}, {"share": "x"}]}, "many[1].share", "a number"),
    "a path": ({"files": {"../a": "0" * 64}}, "files.../a", "plain file name"),
    "a hidden name": ({"files": {".a": "0" * 64}}, "files..a", "plain file name"),
    "an empty name": ({"files": {"": "0" * 64}}, "files", "plain file name"),
    "a long name": ({"files": {"a" * 256: "0" * 64}}, "files", "plain file name"),
    "a control character": ({"files": {"a\n": "0" * 64}}, "files", "plain file name"),
    "no digest": ({"files": {"a": "0" * 63}}, "files.a", "64 hex digits"),
    "capitals": ({"files": {"a": "A" * 64}}, "files.a", "64 hex digits"),
    "of no member": ({"side": 10}, "side", "1 to 9 pixels or a text"),
    "fields together": ({"count": 13}, "", "no 13"),
}


@pytest.mark.parametrize(("change", "at", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_names_place_and_expectation(
    change: dict[str, Any], at: str, expected: str
) -> None:
    with pytest.raises(Misfit) as fault:
        decode(Outer, {**GOOD, **change})
    assert fault.value.at.startswith(at)
    assert expected in fault.value.expected
    assert at in str(fault.value)


def test_an_unknown_field_is_a_fault_where_it_is_strict_only() -> None:
    newer = {**GOOD, "inner": {"share": 1, "later": 2}}
    assert decode(Outer, newer) == decode(Outer, {**GOOD, "inner": {"share": 1}})
    with pytest.raises(Misfit, match=r"inner\.later is unknown") as fault:
        decode(Outer, newer, strict=True)
    assert fault.value.unknown == "later"


def test_the_text_of_a_fault_is_short() -> None:
    with pytest.raises(Misfit) as fault:
        decode(Outer, {**GOOD, "count": "x" * 10**6, "a" * 10**6: 1})
    assert len(str(fault.value)) < 200
