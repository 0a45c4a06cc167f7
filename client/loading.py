"""A silo's source -> the snapshot in its owner's folder: read, checked, counted, split.

What the plan's public facts say about time decides which rows are which:

- `train` holds the rows before `valid_from` (all rows, if the plan holds none back). Releases
  read nothing else, so it ends where the plan says and not a day later, however new the rows are.
- `valid` holds what customers took from `valid_from` to before `test_from`: what the fusion
  statistic reads, and what the silo tunes its own mix on. A plan without these days has no
  validation: rows that a model was fitted on would only flatter it.
- `interim` holds every row from `valid_from` on, those after `test_from` included: known when
  customers are served, read by no release.
- `test` is empty. It exists to measure a simulation; a shop serves its customers with all it
  knows, and what its own evaluation held back would be lost to them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError, DataError
from fondaco.shared.files import write_durably
from fondaco.shared.models.terms import day_of
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.schema import REQUIRED_INTERACTION_COLUMNS, pick_columns
from fondaco.shared.vocabulary import Vocabulary

from .dataset import NO_ROWS, Fold, SiloDataset
from .dataset_files import whole_folder, write_silo
from .erasure import Erasures
from .intake import Intake, Terms
from .owner import FACTS, Owner
from .quarantine import QUARANTINE, Quarantine
from .source_memory import SourceShape
from .sources import BATCH_ROWS, open_source
from .sources.config import SourceFile, read_source_file
from .sources.table import Source
from .splits import split_by_time

SOURCE_FILE = "source.toml"
READ_FOR = "read-for.json"
"""Beside the rows: the public facts of the plan by which they were split."""
ROWS_READ = "rows read"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What came of reading a source; private counts, for the owner's eyes.

    Attributes:
        rows: in the snapshot.
        trained: of them, those that releases may read.
        customers: with at least one row in the snapshot.
        items: of them that somebody took.
        quarantined: bad rows, put aside.
        unknown_items: rows of items that the public catalogue does not list, or not sold here.
        outside: rows of another time or silo, or rated too low.
        erased: rows of customers who were erased.
        quarantine: file of the bad rows, "" if there are none.
    """

    rows: int
    trained: int
    customers: int
    items: int
    quarantined: int
    unknown_items: int
    outside: int
    erased: int
    quarantine: str


@dataclass(frozen=True, kw_only=True)
class ReadFor:
    """The public facts of a plan that decide how rows are indexed and split."""

    catalogue_digest: str
    valid_from: str
    test_from: str
    repeats: str

    @classmethod
    def of_plan(cls, plan: RunPlan) -> "ReadFor":
        """Return the facts of `plan`.

        Raises:
            ConfigError: it measures in a way that only a simulation can.
        """
        protocol = plan.public.get("protocol", "all-rows")
        if protocol not in ("time", "all-rows"):
            raise ConfigError(f"the plan measures by {protocol!r}, which only a simulation can")
        dates = plan.public if protocol == "time" else {}
        return cls(
            catalogue_digest=plan.catalogue_digest,
            valid_from=dates.get("valid_from", ""),
            test_from=dates.get("test_from", ""),
            repeats=plan.public.get("repeats", "no"),
        )

    @classmethod
    def of_rows(cls, folder: Path) -> "ReadFor | None":
        """Return the facts by which the snapshot in a folder was divided; None if none are noted.

        Raises:
            DataError: the file is damaged.
        """
        path = folder / READ_FOR
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise DataError(
                f"{path} is damaged; read the rows in again with fondaco-client load"
            ) from None


def load(
    owner: Owner,
    settings: SourceFile,
    plan: RunPlan,
    catalogue: Catalogue,
    *,
    tell: Progress = lambda stage, done, of: None,
    accept_schema: bool = False,
) -> Loaded:
    """Replace the owner's snapshot by what the source holds now; whole or not at all.

    Args:
        owner: whose rows these are.
        settings: of `source.toml`.
        plan: approved or offered; its public facts split the rows.
        catalogue: the public items that the plan names.
        tell: hears (stage, done, of) while rows are read.
        accept_schema: takes the source's columns as they are now, whatever they were.

    Raises:
        ConfigError: a setting, a library or an address is wrong, or this silo is simulated.
        DataError: the source cannot be read, has changed, or holds bad rows that are refused.
    """
    if not (owner.folder / FACTS).is_file():
        raise ConfigError(f"{owner.silo_id} is simulated; its rows were made with the run")
    read_for = ReadFor.of_plan(plan)
    quarantine = Quarantine()
    with open_source(settings.source) as source:
        names = _names(source, settings)
        shape = SourceShape.of(source, names, settings)
        if not accept_schema:
            shape.check(owner.folder, source.name)
        terms = Terms(
            names=names,
            settings=settings,
            items=catalogue.items,
            sold=read_assortment(settings, catalogue.items),
            silo_id=owner.silo_id,
            needs_clock=bool(read_for.valid_from or settings.source.since or settings.source.until),
        )
        intake = Intake(terms, quarantine)
        _read(source, intake, tell)
    everything = _everything(owner.silo_id, intake, len(catalogue), terms)
    erasures = Erasures(owner.home.erased, owner.home.secret(owner.identity))
    with owner.home.alone():
        put_aside = quarantine.save(owner.folder / QUARANTINE, erasures)
        _judge(intake, quarantine, settings, put_aside)
        kept = erasures.kept(everything)
        dataset = split(kept, read_for)
        save_snapshot(dataset, owner.rows, read_for)
        shape.keep(owner.folder)
    return Loaded(
        rows=len(kept.train),
        trained=len(dataset.train),
        customers=dataset.n_users,
        items=int(np.count_nonzero(np.bincount(kept.train.item_nums))),
        quarantined=quarantine.count,
        unknown_items=intake.unknown,
        outside=intake.outside,
        erased=len(everything.train) - len(kept.train),
        quarantine=str(put_aside or ""),
    )


def _everything(silo_id: str, intake: Intake, n_items: int, terms: Terms) -> SiloDataset:
    """Return all rows that were taken in, not divided yet."""
    user_ids, rows = intake.rows()
    return SiloDataset(
        silo_id=silo_id,
        user_ids=user_ids,
        n_items=n_items,
        train=rows,
        valid=_nobody(),
        test=_nobody(),
        assortment=terms.sold,
    )


def split(everything: SiloDataset, read_for: ReadFor) -> SiloDataset:
    """Return a silo's rows as a deployed plan divides them; see above for why.

    Args:
        everything: all rows in `train`.
        read_for: the plan's public facts.
    """
    if not read_for.valid_from:
        return everything
    valid_from, test_from = day_of(read_for.valid_from), day_of(read_for.test_from)
    rows = everything.train
    divided = split_by_time(
        rows.take(rows.times < test_from),
        silo_id=everything.silo_id,
        user_ids=everything.user_ids,
        n_items=everything.n_items,
        valid_from=valid_from,
        test_from=test_from,
        keep_repeats=read_for.repeats == "yes",
        assortment=everything.assortment,
    )
    return replace(divided, test=_nobody(), interim=rows.take(rows.times >= valid_from))


def save_snapshot(dataset: SiloDataset, folder: Path, read_for: ReadFor) -> None:
    """Write a divided dataset and by which facts it was divided; whole or not at all."""
    with whole_folder(folder.resolve()) as partial:
        write_silo(dataset, partial)
        write_durably(partial / READ_FOR, json.dumps(asdict(read_for)).encode())


def check_read_for(folder: Path, plan: RunPlan) -> None:
    """Hold the snapshot in a folder against the plan by which it is to be used.

    Raises:
        ConfigError: it was read for a plan that divides rows in another way.
        DataError: what was noted of that plan is damaged.
    """
    if ReadFor.of_rows(folder) != ReadFor.of_plan(plan):
        raise ConfigError(
            f"the rows in {folder} were read for another plan (other items, days or repeats); "
            "read them again with fondaco-client load"
        )


def describe_source(home: Path, settings: SourceFile) -> dict[str, tuple[str, str]]:
    """Return the columns that would be read: our name -> the source's name and type. Reads no row.

    Raises:
        ConfigError: a setting, a library or an address is wrong.
        DataError: the source or the list of items sold here cannot be opened, lacks a column, or
            the source is not what it was last time.
    """
    with open_source(settings.source) as source:
        shape = SourceShape.of(source, _names(source, settings), settings)
        shape.check(home, source.name)
    if settings.sold is not None:
        with open_source(settings.sold) as listed:
            _check_listed(listed, settings)
    return dict(shape.columns)


def read_settings(home: Path, path: Path | None = None) -> SourceFile:
    """Return the settings of an owner's folder, or of another file.

    Raises:
        ConfigError: the file is missing, or something in it is wrong.
    """
    return read_source_file(path or home / SOURCE_FILE)


def read_assortment(settings: SourceFile, items: Vocabulary) -> NDArray[np.bool_] | None:
    """Return (n_items,) what the silo sells, None for everything.

    Raises:
        DataError: the list cannot be read, or names no item of the catalogue.
    """
    if settings.sold is None:
        return None
    column = settings.assortment.column
    sold = np.zeros(len(items), dtype=np.bool_)
    with open_source(settings.sold) as source:
        _check_listed(source, settings)
        for table in source.batches([column], BATCH_ROWS):
            nums = items.nums(table.ids(column).tolist())
            sold[nums[nums >= 0]] = True
        if not sold.any():
            raise DataError(f"assortment {source.name} names no item of the public catalogue")
    return sold


def _check_listed(source: Source, settings: SourceFile) -> None:
    column = settings.assortment.column
    if column not in source.columns:
        raise DataError(f"assortment {source.name} has no column {column!r}; set assortment.column")


def _names(source: Source, settings: SourceFile) -> Mapping[str, str]:
    """Our name -> the source's, of the columns that are needed; others are never read."""
    names = pick_columns(
        source.name, source.columns, settings.columns, REQUIRED_INTERACTION_COLUMNS
    )
    if settings.checks.min_rating == -np.inf:
        names.pop("rating", None)
    elif "rating" not in names:
        raise DataError(f"{source.name} has no column {settings.columns.rating!r} of ratings")
    return names


def _read(source: Source, intake: Intake, tell: Progress) -> None:
    batches = source.batches(list(intake.names.values()), BATCH_ROWS)
    try:
        for table in batches:
            intake.take(table)
            tell(ROWS_READ, intake.seen, source.n_rows or intake.seen)
    finally:
        batches.close()


def _judge(
    intake: Intake, quarantine: Quarantine, settings: SourceFile, put_aside: Path | None
) -> None:
    """Refuse a source of which too little can be used.

    Raises:
        DataError: too many rows are bad, or none is left.
    """
    most = settings.checks.most_bad
    if quarantine.count > most * intake.seen:
        raise DataError(
            f"{quarantine.count} of {intake.seen} rows are bad, more than checks.most_bad={most}; "
            f"nothing was taken over. The first: {quarantine.first}. All: {put_aside}"
        )
    if not intake.taken:
        raise DataError(
            f"none of {intake.seen} rows can be used: {quarantine.count} are bad, {intake.unknown} "
            f"of unknown items, {intake.outside} of another time or silo, or rated too low"
        )


def _nobody() -> Fold:
    nobody = np.empty(0, dtype=np.int64)
    return Fold(user_nums=nobody, history=NO_ROWS, targets=NO_ROWS)
