"""Values that a log may hold: kinds that no row of a customer fits, and one check of them."""

import re
from collections.abc import Callable, Mapping
from typing import Literal

from .address import is_address

Value = str | int | float
Kind = Literal[
    "silo", "digest", "word", "phrase", "error", "address", "decimal", "count", "seconds", "place"
]
Fields = Mapping[str, Kind]
"""Name of a field -> what its value must be."""

MAX_TEXT = 256
MAX_COUNT = 2**53


def _matches(pattern: str) -> Callable[[object], bool]:
    whole = re.compile(pattern)
    return lambda value: (
        isinstance(value, str) and len(value) <= MAX_TEXT and whole.fullmatch(value) is not None
    )


KINDS: Mapping[Kind, Callable[[object], bool]] = {
    "silo": lambda value: (
        isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()
    ),
    "digest": _matches(r"(sha256:)?([0-9a-fA-F]{4}[ :-]?){2,16}"),
    "word": _matches(r"[a-z][a-z0-9 _.-]{0,59}"),
    "phrase": _matches(r"[A-Za-z][A-Za-z0-9 _.-]{0,59}"),
    "error": _matches(r"[A-Za-z_][A-Za-z0-9_]{2,59}"),
    "address": lambda value: isinstance(value, str) and is_address(value),
    "decimal": _matches(r"[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?"),
    "count": lambda value: type(value) is int and 0 <= value <= MAX_COUNT,
    "seconds": lambda value: type(value) in (int, float) and 0 <= float(str(value)) <= MAX_COUNT,
    "place": _matches(r"[A-Za-z0-9_.<>-]{1,160}:[0-9]{1,7}"),
}
"""Kind -> whether a value is of it.

A `silo` is a public name, a `word` one of our own, an `error` the name of a class, a `place` a
module and a line of it.
"""


def misfits(allowed: Fields, given: Mapping[str, object]) -> list[str]:
    """Return the names of those of `given` that are not allowed or hold something else."""
    return [
        name
        for name, value in given.items()
        if name not in allowed or not fits(allowed[name], value)
    ]


def fits(kind: Kind, value: object) -> bool:
    """Return whether `value` is of this kind."""
    return KINDS[kind](value)
