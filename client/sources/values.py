"""Rows that arrive as Python values, as database drivers give them."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.errors import DataError

from .table import RawTable, as_cells

_AS_IDS = {str, int, UUID, type(None)}
_AS_TEXT = {*_AS_IDS, float, Decimal}


class ValueTable(RawTable):
    """Rows of a query, counted from 1 in the order in which they came."""

    def __init__(self, name: str, columns: Mapping[str, Sequence[object]], before: int) -> None:
        super().__init__()
        self._name = name
        self._columns = columns
        self._before = before

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def cells(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) cells as text, None where null.

        Raises:
            DataError: a value is neither text, a number nor a time.
        """
        values = self._columns[name]
        kinds = set(map(type, values))
        if kinds <= {str, type(None)}:
            return as_cells(values)  # type: ignore[arg-type]
        odd = next((k for k in kinds if k not in _AS_TEXT and not issubclass(k, date)), None)
        if odd is not None:
            raise DataError(
                f"{self._name}, column {name!r}: {odd.__name__} cannot be read as text or numbers"
            )
        return as_cells(map(_as_text, values))

    def ids(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) ids.

        Raises:
            DataError: an id is missing, or one is neither text nor an integer.
        """
        odd = set(map(type, self._columns[name])) - _AS_IDS
        if odd:
            kind = min(one.__name__ for one in odd)
            raise DataError(
                f"{self._name}, column {name!r}: {kind} numbers are no ids; store text or integers"
            )
        return super().ids(name)

    def place(self, row: int) -> str:
        """Return the row's number."""
        return f"{self._name} row {self._before + row + 1}"


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)
