"""A silo's dataset <-> a folder: plain arrays and JSON, no pickle, checked when read."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.errors import DataError

from .dataset import Fold, Rows, SiloDataset

SCHEMA = 1
DATASET = "dataset.json"
"""What a folder of rows says of itself."""
_ROWS = ("train", "valid.history", "valid.targets", "test.history", "test.targets", "interim")
_FIELDS = ("user_nums", "item_nums", "times")
_ARRAYS = "rows.npz"
_ASSORTMENT = "assortment"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a copy of `folder` to write into, for its owner alone; it takes the folder's place.

    Only if the body succeeds: whoever is killed on the way leaves no half-made folder.
    """
    partial, old = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    if old.is_dir() and not folder.is_dir():
        old.rename(folder)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    if folder.is_dir():
        shutil.copytree(folder, partial)
    partial.mkdir(mode=0o700, exist_ok=True)
    try:
        yield partial
        if folder.is_dir():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_silo(dataset: SiloDataset, folder: str | Path) -> None:
    """Write `dataset` into `folder`, readable by its owner alone; whole or not at all."""
    with whole_folder(Path(folder).resolve()) as partial:
        write_silo(dataset, partial)


def write_silo(dataset: SiloDataset, folder: Path) -> None:
    """Write the files of `save_silo` into a folder that exists."""
    arrays: dict[str, NDArray[np.generic]] = {
        "user_ids": np.asarray(dataset.user_ids, dtype=np.str_),
        "valid.user_nums": dataset.valid.user_nums,
        "test.user_nums": dataset.test.user_nums,
    }
    for name, rows in zip(_ROWS, _all_rows(dataset), strict=True):
        arrays |= {f"{name}.{field}": getattr(rows, field) for field in _FIELDS}
    if dataset.assortment is not None:
        arrays[_ASSORTMENT] = dataset.assortment
    path = folder / _ARRAYS
    with path.open("wb") as file:
        path.chmod(0o600)
        np.savez(file, allow_pickle=False, **arrays)
    facts = {
        "schema": SCHEMA,
        "silo_id": dataset.silo_id,
        "n_items": dataset.n_items,
        "n_users": dataset.n_users,
        "sha256": _sha256(path),
    }
    (folder / DATASET).write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class SiloFacts:
    """What stands beside a silo's rows: no row, no customer."""

    silo_id: str
    n_items: int
    n_users: int


def silo_facts(folder: Path) -> SiloFacts:
    """Return the facts beside the rows of `save_silo`, which must be whole; reads no row.

    Raises:
        DataError: a file is missing, damaged or of another schema.
    """
    facts = _read_facts(folder)
    try:
        return SiloFacts(
            silo_id=str(facts["silo_id"]),
            n_items=int(facts["n_items"]),
            n_users=int(facts["n_users"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / DATASET} is damaged: {error}") from error


def load_silo(folder: str | Path) -> SiloDataset:
    """Return the dataset that `save_silo` wrote into `folder`.

    Raises:
        DataError: a file is missing, damaged, of another schema, or out of range.
    """
    folder = Path(folder)
    path = folder / _ARRAYS
    facts = _read_facts(folder)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            dataset = _assemble(facts["silo_id"], facts["n_items"], dict(arrays.items()))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{folder} holds no silo dataset: {error}") from error
    _check_ranges(dataset, folder)
    return dataset


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / _ARRAYS
    try:
        facts: dict[str, Any] = json.loads((folder / DATASET).read_text(encoding="utf-8"))
        if facts["schema"] != SCHEMA:
            raise DataError(f"{folder} has schema {facts['schema']}; this program reads {SCHEMA}")
        if facts["sha256"] != _sha256(path):
            raise DataError(f"{path} is damaged: its sha256 is not the one in {DATASET}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} holds no silo dataset: {error}") from error
    return facts


def _assemble(silo_id: str, n_items: int, arrays: dict[str, NDArray[np.generic]]) -> SiloDataset:
    def rows(name: str) -> Rows:
        return Rows(
            user_nums=arrays[f"{name}.user_nums"].astype(np.int64, copy=False),
            item_nums=arrays[f"{name}.item_nums"].astype(np.int64, copy=False),
            times=arrays[f"{name}.times"].astype(np.float64, copy=False),
        )

    def fold(name: str) -> Fold:
        return Fold(
            user_nums=arrays[f"{name}.user_nums"].astype(np.int64, copy=False),
            history=rows(f"{name}.history"),
            targets=rows(f"{name}.targets"),
        )

    sold = arrays.get(_ASSORTMENT)
    return SiloDataset(
        silo_id=silo_id,
        user_ids=arrays["user_ids"].astype(np.str_, copy=False),
        n_items=n_items,
        train=rows("train"),
        valid=fold("valid"),
        test=fold("test"),
        interim=rows("interim"),
        assortment=None if sold is None else sold.astype(np.bool_, copy=False),
    )


def _all_rows(dataset: SiloDataset) -> tuple[Rows, ...]:
    return (
        dataset.train,
        dataset.valid.history,
        dataset.valid.targets,
        dataset.test.history,
        dataset.test.targets,
        dataset.interim,
    )


def _check_ranges(dataset: SiloDataset, folder: Path) -> None:
    sold = dataset.assortment
    if sold is not None and sold.shape != (dataset.n_items,):
        raise DataError(f"{folder}: the assortment is not of {dataset.n_items} items")
    for name, rows in zip(_ROWS, _all_rows(dataset), strict=True):
        if not len(rows.user_nums) == len(rows.item_nums) == len(rows.times):
            raise DataError(f"{folder}: the columns of {name} differ in length")
        for nums, limit in ((rows.user_nums, dataset.n_users), (rows.item_nums, dataset.n_items)):
            if len(nums) and not (nums.min() >= 0 and nums.max() < limit):
                raise DataError(f"{folder}: {name} holds a number outside 0 to {limit - 1}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
