"""Recommendations for every customer as a file that appears whole, for its owner alone."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fondaco.shared.errors import ConfigError

from .lists import Lists, SiloState
from .recommender import PARTS

COLUMNS = ("customer", "rank", "item_id", "score", *PARTS)
"""One row per recommended item; `global` + `own` + `content` = `score` up to rounding."""
DIGITS = 6
Columns = Mapping[str, list[Any]]


class Writer(Protocol):
    """Writes rows, given as columns of equal length."""

    def write(self, columns: Columns) -> None:
        """Append rows."""

    def close(self) -> None:
        """Write what is still missing; the file itself stays open."""


class CsvLists:
    """A header line and one line per item."""

    def __init__(self, file: BinaryIO) -> None:
        self._text = _Utf8(file)
        self._rows = csv.writer(self._text, lineterminator="\n")
        self._rows.writerow(COLUMNS)

    def write(self, columns: Columns) -> None:
        """Append rows."""
        self._rows.writerows(zip(*(columns[name] for name in COLUMNS), strict=True))

    def close(self) -> None:
        """Nothing is missing."""


class JsonLists:
    """One JSON object per line and item."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, columns: Columns) -> None:
        """Append rows."""
        for row in zip(*(columns[name] for name in COLUMNS), strict=True):
            line = json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False)
            self._file.write(line.encode() + b"\n")

    def close(self) -> None:
        """Nothing is missing."""


class ParquetLists:
    """One row group per batch of customers."""

    def __init__(self, file: BinaryIO) -> None:
        kinds = {"customer": pa.string(), "rank": pa.int32(), "item_id": pa.string()}
        fields = [(name, kinds.get(name, pa.float32())) for name in COLUMNS]
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(file, self._schema)

    def write(self, columns: Columns) -> None:
        """Append rows."""
        self._writer.write_table(pa.table(dict(columns), schema=self._schema))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


class _Utf8:
    """Text -> bytes of a file that stays open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


WRITERS: Mapping[str, Callable[[BinaryIO], Writer]] = {
    ".csv": CsvLists,
    ".jsonl": JsonLists,
    ".parquet": ParquetLists,
}
"""Ending of a file's name -> what writes it."""


def write_lists(state: SiloState, path: Path, n: int, told: Callable[[int, int], None]) -> int:
    """Write the `n` best items of every customer and return how many customers that were.

    Args:
        state: a silo that can recommend.
        path: its ending names the format; a file that is there is replaced in one step.
        n: length of each list.
        told: (customers done, of all), called after each batch.

    Raises:
        ConfigError: the ending is unknown.
        OSError: the file cannot be written; none is left then.
    """
    make = writer_for(path)
    done, of = 0, state.dataset.n_users
    ids = np.array(state.catalogue.items.ids, dtype=np.object_)
    with _appears_whole(path) as file:
        writer = make(file)
        for lists in state.everybody(n):
            writer.write(_columns(lists, ids))
            done += len(lists.user_ids)
            told(done, of)
        writer.close()
    return done


def writer_for(path: Path) -> Callable[[BinaryIO], Writer]:
    """Return what writes a file of this name.

    Raises:
        ConfigError: its ending is unknown.
    """
    if path.suffix not in WRITERS:
        raise ConfigError(f"{path} must end in one of {', '.join(WRITERS)}")
    return WRITERS[path.suffix]


def _columns(lists: Lists, ids: np.ndarray[Any, np.dtype[np.object_]]) -> Columns:
    users, ranks = np.nonzero(lists.item_nums >= 0)

    def rounded(plane: np.ndarray[Any, np.dtype[np.float32]]) -> list[float]:
        return [float(score) for score in np.round(plane[users, ranks].astype(np.float64), DIGITS)]

    return {
        "customer": lists.user_ids[users].tolist(),
        "rank": (ranks + 1).tolist(),
        "item_id": ids[lists.item_nums[users, ranks]].tolist(),
        "score": rounded(lists.scores),
        **{part: rounded(lists.parts[part]) for part in PARTS},
    }


@contextmanager
def _appears_whole(path: Path) -> Iterator[BinaryIO]:
    """Give a new file, readable by its owner alone, that takes its name only if all went well."""
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
