"""Parquet tables: ids from text or integer columns only, so that 1 and 1.0 never meet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fondaco.shared.errors import DataError

from .table import RawTable


class ParquetTable(RawTable):
    """A Parquet file; rows are counted from 1, as no line exists."""

    _rows: pa.Table

    def read(self, names: Sequence[str]) -> None:
        """Load the columns `names`."""
        try:
            self._rows = pq.read_table(self.path, columns=list(names))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.name} cannot be read as Parquet: {error}") from error

    def cells(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) cells as text, None where null."""
        column = self._rows.column(name)
        try:
            return np.asarray(column.cast(pa.string()).to_numpy(zero_copy_only=False))
        except pa.ArrowException as error:
            raise DataError(
                f"{self.name}, column {name!r}: {column.type} cannot be read as text or numbers"
            ) from error

    def ids(self, name: str) -> NDArray[np.object_]:
        """Return (n_rows,) ids.

        Raises:
            DataError: an id is missing, or the column holds floating-point numbers.
        """
        kind = self._rows.schema.field(name).type
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            raise DataError(
                f"{self.name}, column {name!r}: {kind} numbers are no ids; store text or integers"
            )
        return super().ids(name)

    def place(self, row: int) -> str:
        """Return the row's number."""
        return f"{self.name} row {row + 1}"


def open_parquet(path: Path) -> ParquetTable:
    """Return the table of `path`, its schema read.

    Raises:
        DataError: the file is not Parquet.
    """
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} cannot be read as Parquet: {error}") from error
    return ParquetTable(path, names)
