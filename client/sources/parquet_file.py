"""Parquet tables: a file, or a folder of files that agree about the columns that are read."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fondaco.shared.errors import DataError

from .arrow import ArrowTable, type_of
from .config import SourceConfig
from .files import files_of, name_of
from .table import RawTable, Source, check_once


class ParquetSource(Source):
    """A Parquet file or a folder of them."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        self._files = files_of(path, ".parquet")
        self.types = self._types(self._files[0])
        with _readable(self.name):
            self.n_rows = sum(pq.read_metadata(one).num_rows for one in self._files)

    def batches(self, names: Sequence[str], n_rows: int) -> Generator[RawTable]:
        """Yield rows of one file after the other, each file's counted from 1.

        Raises:
            DataError: a file is no Parquet, or lacks or types a column otherwise than the first.
        """
        for path in self._files:
            name, types = name_of(path, self._path), self._types(path)
            for wanted in names:
                if types.get(wanted) != self.types[wanted]:
                    raise DataError(
                        f"{name}, column {wanted!r}: {types.get(wanted, 'missing')}, but "
                        f"{self.types[wanted]} in {name_of(self._files[0], self._path)}"
                    )
            before = 0
            with _readable(name), pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=n_rows, columns=list(names)):
                    yield ArrowTable(name, batch, before)
                    before += batch.num_rows

    def close(self) -> None:
        """Do nothing: files are open while they are read."""

    def _types(self, path: Path) -> dict[str, str]:
        name = name_of(path, self._path)
        with _readable(name):
            schema = pq.read_schema(path)
        check_once(name, schema.names)
        return {field.name: type_of(field.type) for field in schema}


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} cannot be read as Parquet: {error}") from error


def open_parquet(config: SourceConfig) -> ParquetSource:
    """Return the source of a path.

    Raises:
        DataError: there is no file, or it is not Parquet.
    """
    return ParquetSource(Path(config.path))
