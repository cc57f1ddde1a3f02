"""A place of our code that needs something of TensorRT's module, and whether that is there."""

from __future__ import annotations

from dataclasses import dataclass

from tests.runtime.trt.bindings.inside import api


@dataclass(frozen=True)
class Use:
    """One place of our code that needs a member of one of `owners` ("trt", "trt.Builder").

    `kind`: it is read, set, overridden ("override"), or called ("call") with so many `positional`
    arguments (-1: unknown) and these keywords.
    """

    owners: frozenset[str]
    member: str
    kind: str
    where: str
    positional: int = -1
    keywords: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{'|'.join(sorted(self.owners))}.{self.member}"

    def problem(self) -> str:
        """Return what these bindings lack for it, or ''."""
        owners = [owner for owner in self.owners if api.exists(owner, self.member)]
        if not owners:
            return f"{self} does not exist ({self.where})"
        if self.kind == "set" and not any(api.is_writable(owner, self.member) for owner in owners):
            return f"{self} cannot be set ({self.where})"
        if self.kind == "call" and not any(map(self._is_taken, owners)):
            count = f"{self.positional} arguments and {sorted(self.keywords)}"
            return f"{self} does not take {count} ({self.where})"
        return ""

    def _is_taken(self, owner: str) -> bool:
        overloads = api.signatures(owner, self.member)
        if not overloads or self.positional < 0:
            return True
        return any(overload.takes(self.positional, self.keywords) for overload in overloads)
