"""Rows that arrive as Arrow batches: ids from text or integer columns only, so 1 is never 1.0."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fondaco.shared.errors import DataError

from .table import RawTable


class ArrowTable(RawTable):
    """Rows of one Arrow batch, counted from 1 as no line exists."""

    def __init__(self, name: str, rows: pa.RecordBatch, before: int) -> None:
        super().__init__()
        self._name = name
        self._rows = rows
        self._before = before

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def cells(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) cells as text, None where null."""
        column = self._rows.column(name)
        try:
            return np.asarray(column.cast(pa.string()).to_numpy(zero_copy_only=False))
        except pa.ArrowException as error:
            raise DataError(
                f"{self._name}, column {name!r}: {column.type} cannot be read as text or numbers"
            ) from error

    def ids(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) ids.

        Raises:
            DataError: an id is missing, or the column holds numbers that are no integers.
        """
        kind = self._rows.schema.field(name).type
        if type_of(kind) not in ("text", "integer", "nothing"):
            raise DataError(
                f"{self._name}, column {name!r}: {kind} numbers are no ids; store text or integers"
            )
        return super().ids(name)

    def place(self, row: int) -> str:
        """Return the row's number."""
        return f"{self._name} row {self._before + row + 1}"


def type_of(kind: pa.DataType) -> str:
    """Return what kind of values an Arrow type holds: alike for 32 and 64 bits."""
    if pa.types.is_dictionary(kind):
        return type_of(kind.value_type)
    families = {
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        "integer": (pa.types.is_integer,),
        "float": (pa.types.is_floating,),
        "decimal": (pa.types.is_decimal,),
        "time": (pa.types.is_timestamp, pa.types.is_date),
        "boolean": (pa.types.is_boolean,),
        "nothing": (pa.types.is_null,),
    }
    return next((f for f, tests in families.items() if any(t(kind) for t in tests)), str(kind))
