"""How long does a ledger take: to append with fsync, to open, to be audited, and how big is it?

`python -m fondaco.simulation.benchmarks.ledger`: a silo's own records of many rounds, each
debited under a co-signed head, released, and co-signed for others; then a ledger that was filled
up to a hundred thousand records, to which more are appended.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import typer

from fondaco.shared.audit.verify import verify
from fondaco.shared.calibration import Statistic, filter_budget, plan_releases
from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.chain.notes import Checkpoint, cosign
from fondaco.shared.chain.store import Chain
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import GRID, SCHEMA, Cohort, RunPlan
from fondaco.shared.provenance import code_digest

from .common import Row, record

SILOS = ("silo 1", "silo 2", "silo 3")
EPSILON, DELTA = 1.0, 1e-6
SOURCE = "seeded chacha20: no claim"
MOST_P99_MS = 25.0
LEAST_VERIFIED = 3_000.0
MOST_SECONDS = 60.0
UNITS = {
    "append_p50": "ms",
    "append_p99": "ms",
    "debit_p99": "ms",
    "release_p99": "ms",
    "cosign_p99": "ms",
    "record_size": "bytes",
    "opened": "records/s",
    "audited": "records/s",
    "whole": "s",
}
_ROOT = bytes(32)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Book:
    """One ledger under measurement.

    Attributes:
        path: its SQLite file.
        owner: the silo's key.
        plan: what may be debited.
    """

    path: Path
    owner: Identity
    plan: RunPlan

    def open(self) -> Ledger:
        """Return the ledger, begun if it is new."""
        return Ledger.open_or_create(self.path, SILOS[0], self.owner, self.plan)


def plan_of(n_rounds: int) -> RunPlan:
    """Return a plan of `n_rounds` small releases by three silos, two of which witness."""
    identities = _identities()
    cohort = Cohort(n_silos=len(SILOS), n_min=len(SILOS), t_collude=1)
    releases = plan_releases(
        [Statistic(kind="popularity", share=1.0, dim=5) for _ in range(n_rounds)],
        epsilon=EPSILON,
        target_delta=DELTA,
        cohort=cohort,
        trust="silo",
    )
    order, budget = filter_budget(releases, DELTA)
    return RunPlan(
        schema=SCHEMA,
        trust="silo",
        secure_aggregation="none",
        mode="simulation",
        cohort=cohort,
        grid=GRID,
        target_delta=repr(DELTA),
        target_epsilon=repr(EPSILON),
        order=order,
        budget_units=budget,
        releases=releases,
        catalogue_digest="sha256:" + "0" * 64,
        n_items=5,
        head=4,
        code_digest=code_digest(),
        models={},
        public={},
        expires="2999-12-31",
        witnesses=len(SILOS) - 1,
        roster={silo: identities[silo].public.text() for silo in SILOS},
        coordinator=identities[COORDINATOR].public.text(),
    )


def run_rounds(book: Book) -> dict[str, list[float]]:
    """Go through all rounds of the plan; return the time of every append [s] by its kind."""
    signers = [identity for name, identity in _identities().items() if name != SILOS[0]]
    seconds: dict[str, list[float]] = {"debit": [], "release": [], "cosign": []}
    with book.open() as ledger:
        for event in book.plan.releases:
            number = event.round_num
            note = ledger.chain.note()
            note += "".join(cosign(note, signer, number) for signer in signers)
            pay = partial(ledger.debit, event.kind, number, witnessed=note)
            took, debit = _timed(partial(pay, request=f"sha256:{number:064x}"))
            seconds["debit"].append(took)
            blob = number.to_bytes(64, "big")
            took, _ = _timed(partial(ledger.record_release, debit, blob, SOURCE))
            seconds["release"].append(took)
            took, _ = _timed(partial(ledger.note_cosigned, [_head(number)]))
            seconds["cosign"].append(took)
    return seconds


def fill(book: Book, n_records: int) -> float:
    """Append COSIGN records in one transaction up to `n_records`; return how long it took [s]."""
    book.open().close()

    def append() -> None:
        with closing(Chain(book.path, book.owner)) as chain, chain.writing():
            for size in range(1, n_records - len(chain.bodies) + 1):
                chain.append({"type": "COSIGN", "heads": [_head(size).as_text()]})

    return _timed(append)[0]


def append_more(book: Book, n_more: int) -> list[float]:
    """Append to a ledger that is there, each record with its fsync; return the times [s]."""
    with book.open() as ledger:
        start = len(ledger.records())
        heads = [_head(start + num) for num in range(n_more)]
        return [_timed(partial(ledger.note_cosigned, [head]))[0] for head in heads]


def check_seconds(book: Book, folder: Path) -> tuple[float, float, int]:
    """Return the time to open the file, the time to audit its export [s], and its records."""
    opened = _timed(lambda: book.open().close())[0]
    with book.open() as ledger:
        lines = ledger.chain.lines()
    export = folder / "export.jsonl"
    export.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    audited = _timed(lambda: verify([export], [], [], _untold))[0]
    return opened, audited, len(lines)


def measure_run(n_rounds: int, folder: Path) -> Row:
    """Return the figures of a silo's ledger over `n_rounds` rounds."""
    book = Book(path=folder / "run.db", owner=_identities()[SILOS[0]], plan=plan_of(n_rounds))
    start = time.perf_counter()
    seconds = run_rounds(book)
    written = time.perf_counter() - start
    return _row(f"{n_rounds} rounds", book, folder, seconds, written)


def measure_large(n_records: int, n_more: int, folder: Path) -> Row:
    """Return the figures of a ledger of `n_records`, to which `n_more` are appended."""
    book = Book(path=folder / "large.db", owner=_identities()[SILOS[0]], plan=plan_of(1))
    written = fill(book, n_records)
    seconds = {"cosign": append_more(book, n_more)}
    return _row("filled up", book, folder, seconds, written)


def _row(
    name: str, book: Book, folder: Path, seconds: dict[str, list[float]], written: float
) -> Row:
    opened, audited, n_records = check_seconds(book, folder)
    every = [1e3 * value for values in seconds.values() for value in values]
    p99 = float(np.percentile(every, 99))
    whole = written + opened + audited
    reached = p99 <= MOST_P99_MS and n_records / audited >= LEAST_VERIFIED
    return {
        "ledger": name,
        "records": n_records,
        "append_p50": float(np.median(every)),
        "append_p99": p99,
        **{f"{kind}_p99": _p99(seconds.get(kind, ())) for kind in ("debit", "release", "cosign")},
        "record_size": book.path.stat().st_size / n_records,
        "opened": n_records / opened,
        "audited": n_records / audited,
        "whole": whole,
        "reached": bool(reached and whole <= MOST_SECONDS),
    }


def _p99(seconds: Sequence[float]) -> float:
    return 1e3 * float(np.percentile(seconds, 99)) if seconds else float("nan")


def _head(size: int) -> Checkpoint:
    return Checkpoint(origin=key_name(SILOS[1]), size=size, root=_ROOT)


def _identities() -> dict[str, Identity]:
    names = {silo: key_name(silo) for silo in SILOS} | {COORDINATOR: COORDINATOR}
    return {who: Identity.seeded(0, name) for who, name in names.items()}


def _timed(action: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def _untold(name: str, number: int) -> None:
    del name, number


def main(
    *,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of a run.")] = 300,
    records: Annotated[int, typer.Option(help="Records of the large ledger.")] = 100_000,
    more: Annotated[int, typer.Option(help="Records appended to the large ledger.")] = 200,
    folder: Annotated[
        Path | None, typer.Option(help="On the disk to be measured; a temporary one if none.")
    ] = None,
) -> None:
    """Time a ledger's appends and checks."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        rows = [measure_run(rounds, place), measure_large(records, more, place)]
    record("ledger", rows, out, seed=0, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
