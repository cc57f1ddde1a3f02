"""The C++ of NVIDIA's interfaces for one version, written from the table `slots.txt`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finedge.runtime.trt.library import numbers

TABLE = Path(__file__).with_name("slots.txt")
# Methods that came after the newest header that we have read: to call one ends the process too.
SPARE = 16
CONDITION = re.compile(r"^(<|>=)([\d.]+)\s+(.*)")
SIGNATURE = re.compile(r"^(?P<result>.+?)(?P<name>\w+)\((?P<parameters>.*)\)$")


@dataclass(frozen=True)
class Interface:
    """Its name, and a line for each slot of its virtual table: a signature, a name or "~"."""

    name: str
    slots: tuple[str, ...]

    def cpp(self) -> str:
        """Return the class: its methods end the process unless they are overridden."""
        spare = [f"unknown method {len(self.slots) + i}" for i in range(SPARE)]
        lines = [self._method(slot, i) for i, slot in enumerate([*self.slots, *spare])]
        return "\n".join([f"struct {self.name} {{", *lines, "};"])

    def _method(self, slot: str, place: int) -> str:
        if slot == "~":
            return f"    virtual ~{self.name}() = default;"
        match = SIGNATURE.match(slot)
        declaration = slot if match else f"void slot_{place}()"
        name = match["name"] if match else slot
        return f'    virtual {declaration} {{ missing("{self.name}::{name}"); }}'


def interfaces(version: str, table: Path = TABLE) -> tuple[Interface, ...]:
    """Return all interfaces as this version of TensorRT has them."""
    blocks = re.split(r"\n\s*\n", table.read_text())
    bodies = [[line for line in block.splitlines() if line[:1] != "#"] for block in blocks]
    return tuple(
        Interface(name, tuple(slot for line in lines for slot in _slots(line.strip(), version)))
        for name, *lines in filter(None, bodies)
    )


def header(version: str) -> str:
    """Return interfaces.h: every interface declared, then defined."""
    known = interfaces(version)
    names = [f"struct {interface.name};" for interface in known]
    return "\n".join([*names, *(interface.cpp() for interface in known)]) + "\n"


def _slots(line: str, version: str) -> Iterator[str]:
    match = CONDITION.match(line)
    if match:
        sign, limit, line = match.groups()
        if (numbers(version) < numbers(limit)) != (sign == "<"):
            return
    yield from [line] if "(" in line else line.split()
