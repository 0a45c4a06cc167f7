"""Column names of interaction and item tables, and the checks that every row must pass.

A check never repairs: it names the first bad row as a `BadCell`, and whoever read the
file turns that into a `DataError` with file, line, column and value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class InteractionColumns:
    """What a file calls the columns of its interaction table."""

    user_id: str = "user_id"
    """Required: the customer."""
    item_id: str = "item_id"
    """Required: the item."""
    time: str = "time"
    """Optional: ISO 8601 date or time, or a number that gives the order."""
    rating: str = "rating"
    """Optional: a finite number."""
    silo_id: str = "silo_id"
    """Optional: the data owner, where one file holds several."""


@dataclass(frozen=True, kw_only=True)
class ItemColumns:
    """What a file calls the columns of its item table."""

    item_id: str = "item_id"
    """Required: distinct ids."""
    text: str = "text"
    """Optional: free text; "" where unknown."""
    category: str = "category"
    """Optional: one category; "" where unknown."""
    brand: str = "brand"
    """Optional: one brand; "" where unknown."""
    price: str = "price"
    """Optional: list price, finite and not negative; empty where unknown."""
    year: str = "year"
    """Optional: year in which the item came out; empty where unknown."""


REQUIRED_INTERACTION_COLUMNS = ("user_id", "item_id")
REQUIRED_ITEM_COLUMNS = ("item_id",)


@dataclass(frozen=True)
class BadCell:
    """The first cell that failed, and where the others are.

    Attributes:
        row: counts from 0.
        value: as written.
        problem: completes "'value' ...".
        rows: (n_bad,) every row that fails in the same way, ascending.
    """

    row: int
    value: str
    problem: str
    rows: NDArray[np.int64] = field(compare=False)

    def error(self, place: str, column: str) -> DataError:
        """Return the error to raise, `place` being such as "orders.csv line 17"."""
        return DataError(f"{place}, column {column!r}: {self.value!r} {self.problem}")


def bad_cell(
    bad: NDArray[np.bool_], values: Sequence[object] | NDArray[np.object_], problem: str
) -> BadCell | None:
    """Return what is wrong with a column, None if (n,) `bad` holds nowhere.

    Args:
        bad: which cells fail.
        values: (n,) the cells as written, None where there is none.
        problem: completes "'value' ...".
    """
    rows = np.flatnonzero(bad)
    if not len(rows):
        return None
    value = values[int(rows[0])]
    return BadCell(int(rows[0]), value if isinstance(value, str) else "", problem, rows)


def check_ids(ids: NDArray[np.object_]) -> BadCell | None:
    """Return the first of (n,) `ids` that is missing: None, NaN or blank text."""
    try:
        bad = ~np.fromiter(map(bool, map(str.strip, ids)), np.bool_, len(ids))
    except TypeError:  # not all of them are text
        bad = np.array([not (isinstance(i, str) and i.strip()) for i in ids], dtype=np.bool_)
    return bad_cell(bad, ids, "is a missing id")


def check_finite(
    numbers: NDArray[np.float64], texts: Sequence[object] | NDArray[np.object_]
) -> BadCell | None:
    """Return the first of (n,) `numbers` that is NaN or infinite; `texts` is as written."""
    return bad_cell(~np.isfinite(numbers), texts, "is not a finite number")


def check_not_negative(
    numbers: NDArray[np.float64], texts: Sequence[object] | NDArray[np.object_]
) -> BadCell | None:
    """Return the first of (n,) `numbers` below 0 (NaN passes); `texts` is as written."""
    return bad_cell(numbers < 0, texts, "is below 0")


def check_known(item_ids: Sequence[str], items: Vocabulary) -> BadCell | None:
    """Return the first of (n,) `item_ids` that the public catalogue does not list."""
    unknown = items.nums(item_ids) < 0
    return bad_cell(unknown, item_ids, f"is none of the catalogue's {len(items)} item ids")


def check_distinct(ids: Sequence[str], seen: set[str] | None = None) -> BadCell | None:
    """Return the first of (n,) `ids` that occurred before, or is in `seen`, which they join."""
    seen = set() if seen is None else seen
    again = np.zeros(len(ids), dtype=np.bool_)
    for row, one in enumerate(ids):
        again[row] = one in seen
        seen.add(one)
    return bad_cell(again, ids, "occurs twice; ids must be distinct")


def pick_columns(
    place: str,
    found: Sequence[str],
    columns: InteractionColumns | ItemColumns,
    required: Sequence[str],
) -> dict[str, str]:
    """Return our name -> the file's name for every column of the table that `found` has.

    An optional column that was given a name of its own must exist as well.

    Raises:
        DataError: a required or renamed column is not among `found`.
    """
    picked: dict[str, str] = {}
    for one in fields(columns):
        name = getattr(columns, one.name)
        if name in found:
            picked[one.name] = name
        elif one.name in required or name != one.default:
            raise DataError(f"{place} has no column {name!r}; {_suggest(name, found)}")
    return picked


def _suggest(name: str, found: Sequence[str]) -> str:
    near = get_close_matches(name.lower(), [f.lower() for f in found], n=1, cutoff=0.5)
    hint = next((f"; did you mean {f!r}?" for f in found if near and f.lower() == near[0]), "")
    return f"it has {', '.join(repr(f) for f in found) or 'no columns'}{hint}"
