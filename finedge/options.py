"""Command-line options that several commands read in the same way."""

from __future__ import annotations

from collections.abc import Collection

from finedge.errors import UsageError, nearest


def comma_list(text: str, *, kind: str, known: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of a comma list in their order, each once; an empty text gives none.

    Spaces around a name and empty places are dropped.

        >>> comma_list("int8, fp32,int8", kind="variant", known=("fp32", "fp16", "int8"))
        ('int8', 'fp32')

    Args:
        text: what the user wrote.
        kind: what one name stands for; the error text uses it.
        known: the names that are allowed; empty: any.

    Raises:
        UsageError: a name that is not among `known`.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if known and name not in known:
            raise UsageError(f"unknown {kind} '{name}'", expected=nearest(name, known))
    return names
