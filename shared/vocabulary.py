"""Ids of the outside world <-> our row numbers, with a content hash that the plan can name."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from .errors import DataError


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of ids; the position of an id is its number.

    Raises:
        DataError: an id occurs twice or is empty.
    """

    ids: tuple[str, ...]
    _nums: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        nums = {item_id: num for num, item_id in enumerate(self.ids)}
        if "" in nums:
            raise DataError(f"id number {nums['']} is empty; every id needs at least one character")
        if len(nums) != len(self.ids):
            twice = next(i for num, i in enumerate(self.ids) if nums[i] != num)
            raise DataError(f"id {twice!r} occurs twice; ids must be distinct")
        object.__setattr__(self, "_nums", nums)

    @classmethod
    def from_values(cls, values: Iterable[object]) -> "Vocabulary":
        """Return the distinct `values` as strings, sorted: independent of row order."""
        return cls(tuple(sorted({str(value) for value in values})))

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._nums

    def num(self, item_id: str) -> int:
        """Return the number of `item_id`.

        Raises:
            DataError: the id is not in the vocabulary.
        """
        try:
            return self._nums[item_id]
        except KeyError:
            raise DataError(
                f"unknown id {item_id!r}; it is none of {len(self)} known ids"
            ) from None

    def nums(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the (n,) numbers of `ids`, -1 where an id is unknown."""
        return np.fromiter(map(self._nums.get, ids, repeat(-1)), dtype=np.int64, count=len(ids))

    @property
    def digest(self) -> str:
        """SHA-256 over the length-prefixed UTF-8 ids, as `sha256:...`."""
        sha = hashlib.sha256()
        for item_id in self.ids:
            raw = item_id.encode()
            sha.update(len(raw).to_bytes(4, "little"))
            sha.update(raw)
        return f"sha256:{sha.hexdigest()}"
