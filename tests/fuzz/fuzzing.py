"""Bytes that make decisions: what hypothesis, atheris or a random generator draws becomes input.

Every `fuzz_*.py` beside this has one `target(data)`: it derives an input from `data`, gives it to
a parser, and raises whatever that should not have raised.
"""

import copy
import json

ODD_NUMBERS = (0, -1, 1, 255, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400)
ODD_TEXTS = (
    "",
    "\x00",
    "\ud800",
    "é\u0301",
    "a" * 2000,
    "9" * 5000,
    "../..",
    "=",
    "sha256:",
    "1/0",
)
ODD_VALUES = (*ODD_NUMBERS, *ODD_TEXTS, None, True, 1.5, -0.0, 1e308, [], {}, [[]], {"": {}})


class Choices:
    """Decisions taken from bytes; once those are used up, all of them are zero."""

    def __init__(self, data):
        self._data, self._at = data, 0

    def number(self, below):
        """Return a number from 0 to `below` - 1."""
        width = max(1, (below - 1).bit_length() + 7 >> 3)
        chunk = self.some(width)
        return int.from_bytes(chunk, "big") % below

    def some(self, size):
        """Return at most `size` bytes."""
        chunk = self._data[self._at : self._at + size]
        self._at += size
        return chunk

    def pick(self, options):
        return options[self.number(len(options))]

    def rest(self):
        return self._data[self._at :]


def bent(sample, choices, *others):
    """Return bytes near `sample`: cut, flipped, overwritten, repeated, or spliced with another."""
    blob = bytearray(sample)
    for _ in range(1 + choices.number(4)):
        at = choices.number(len(blob) + 1)
        choices.pick((_cut, _flip, _overwrite, _insert, _odd_number, _repeat))(blob, at, choices)
        if others and choices.number(8) == 7:
            other = choices.pick(others)
            blob[at:] = other[choices.number(len(other) + 1) :]
    return bytes(blob)


def _cut(blob, at, choices):
    del blob[at : at + choices.pick((1, 8, len(blob)))]


def _flip(blob, at, choices):
    if at < len(blob):
        blob[at] ^= 1 << choices.number(8)


def _overwrite(blob, at, choices):
    blob[at : at + 1 + choices.number(8)] = choices.some(1 + choices.number(8))


def _insert(blob, at, choices):
    blob[at:at] = choices.some(choices.number(64))


def _odd_number(blob, at, choices):
    odd = choices.pick(ODD_NUMBERS) & (2**64 - 1)
    blob[at : at + 8] = odd.to_bytes(8, choices.pick(("big", "little")))


def _repeat(blob, at, choices):
    blob[at:at] = blob[at : at + choices.number(256)] * choices.number(4)


def bent_tree(tree, choices):
    """Return a JSON value near `tree`: odd values, missing or unknown keys, parts moved about."""
    tree = copy.deepcopy(tree)
    for _ in range(1 + choices.number(3)):
        places = list(_places(tree))
        if not places:
            return _odd(choices)
        parent, key = choices.pick(places)
        match choices.number(6):
            case 0 | 1:
                parent[key] = _odd(choices)
            case 2:
                del parent[key]
            case 3:
                other, name = choices.pick(places)
                parent[key] = copy.deepcopy(other[name])
            case 4:
                parent[key] = _near(parent[key], choices)
            case _:
                _add(parent, key, choices)
    return tree


def _add(parent, key, choices):
    if isinstance(parent, dict):
        parent[choices.pick(("", "odd", "__class__", "\u2028"))] = _odd(choices)
    else:
        parent[key:key] = [copy.deepcopy(parent[key]) for _ in range(1 + choices.number(3))]


def _odd(choices):
    return copy.deepcopy(choices.pick(ODD_VALUES))


def _near(value, choices):
    if isinstance(value, bool) or not isinstance(value, int | str):
        return _odd(choices)
    if isinstance(value, int):
        return value + choices.pick((-1, 1, 2, -2, value, 2**32, 10**9))
    at = choices.number(len(value) + 1)
    return value[:at] + choices.some(choices.number(6)).decode("latin-1") + value[at + 1 :]


def _places(tree):
    """Yield (container, key) of everything inside of a JSON value."""
    if not isinstance(tree, dict | list):
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        yield from _places(value)


def spelled(tree, choices):
    """Return a JSON value as text: canonically, or as others would write it."""
    style = choices.number(4)
    if style == 0:
        return json.dumps(tree)
    ordered = style != 1
    return json.dumps(tree, sort_keys=ordered, separators=(",", ":"), ensure_ascii=False)


def as_bytes(text):
    """Return text as UTF-8; half characters as they are."""
    return text.encode("utf-8", "surrogatepass")
