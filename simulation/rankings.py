"""Who is ranked for, and every system's rankings of the test customers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from fondaco.client.dataset import Fold, SiloDataset, as_timelines
from fondaco.shared.metrics import rank_topk
from fondaco.shared.models.published import GlobalParts, never_ranked
from fondaco.shared.models.terms import day_of

from .baselines import Scorer
from .scenario import Scenario

LIST_LENGTH = 100
BATCH_USERS = 512
"""Test customers of a silo that are scored at once."""
COLD_LENGTH = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class EvalSet:
    """Customers of one fold over all silos, silo after silo.

    Attributes:
        history: (n_eval, n_items) 0/1, known when recommending.
        targets: (n_eval, n_items) 0/1.
        hidden: (n_eval, n_items) items that are sold and yet never ranked: the history, unless
            repeats count.
        silo_nums: (n_eval,) position of each customer's silo.
        sold: (n_silos, n_items) what each silo sells; nothing else is ranked.
        cold: (n_silos, n_items) what it sells and nobody took there before the fold.
    """

    history: csr_matrix
    targets: csr_matrix
    hidden: csr_matrix
    silo_nums: NDArray[np.int64]
    sold: NDArray[np.bool_]
    cold: NDArray[np.bool_]

    @property
    def cold_targets(self) -> csr_matrix:
        """(n_eval, n_items) 0/1 the targets that were cold items of the customer's silo."""
        found = self.targets.tocoo()
        cold = self.cold[self.silo_nums[found.row], found.col]
        kept = found.data[cold], (found.row[cold], found.col[cold])
        return csr_matrix(kept, shape=found.shape)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of at most BATCH_USERS customers of one silo each."""
        ends = np.searchsorted(self.silo_nums, np.arange(len(self.sold) + 1))
        for first, last in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            for start in range(first, last, BATCH_USERS):
                yield start, min(start + BATCH_USERS, last)


def pool(silos: Sequence[SiloDataset], fold: str, *, keep_repeats: bool) -> EvalSet:
    """Return the `valid` or `test` customers of all silos, in the silos' order."""
    parts = [(getattr(silo, fold), silo) for silo in silos]
    history = vstack([f.history_matrix(s.n_items) for f, s in parts], format="csr")
    sold = np.stack([_sold(silo) for silo in silos])
    taken = np.stack([_taken(silo, fold) for silo in silos])
    return EvalSet(
        history=history,
        hidden=csr_matrix(history.shape) if keep_repeats else history,
        targets=vstack([f.target_matrix(s.n_items) for f, s in parts], format="csr"),
        silo_nums=np.repeat(np.arange(len(parts)), [len(f.user_nums) for f, _ in parts]),
        sold=sold,
        cold=sold & ~taken,
    )


def _sold(silo: SiloDataset) -> NDArray[np.bool_]:
    everything = np.ones(silo.n_items, dtype=np.bool_)
    return everything if silo.assortment is None else silo.assortment


def _taken(silo: SiloDataset, fold: str) -> NDArray[np.bool_]:
    """(n_items,) what somebody took at the silo before the fold: what it knows by then."""
    known = silo.known if fold == "test" else silo.train
    return np.bincount(known.item_nums, minlength=silo.n_items) > 0


def pool_training(silos: Sequence[SiloDataset]) -> csr_matrix:
    """Return the (customers, n_items) 0/1 training rows of all silos."""
    return vstack([s.train.incidence(s.n_users, s.n_items) for s in silos], format="csr")


class Rankings:
    """Rankings of the test customers by system, and how long each took.

    A silo's items that nobody took there are also ranked among themselves, for the customers
    who then took one: beside items with a past they would hardly ever be seen.
    """

    def __init__(self, test: EvalSet, train: csr_matrix) -> None:
        self.test = test
        self.popularity: NDArray[np.float64] = np.asarray(train.sum(axis=0)).ravel()
        targets = test.cold_targets
        self.cold_rows = np.flatnonzero(np.diff(targets.indptr))
        self.cold_targets = targets[self.cold_rows]
        self.by_system: dict[str, NDArray[np.int64]] = {}
        self.cold_by_system: dict[str, NDArray[np.int64]] = {}
        self.timings_s: dict[str, float] = {}

    def rank(self, system: str, scorer: Scorer) -> None:
        """Rank every test customer's items by `scorer`."""
        for start, stop in self.test.blocks():
            rows = np.arange(start, stop)
            self.rank_silo(system, scorer(self.test.history[rows], rows), start)

    def rank_silo(self, system: str, scores: NDArray[np.float32], start: int) -> None:
        """Rank the items of consecutive customers of one silo from row `start` on, in order."""
        test, stop = self.test, start + len(scores)
        silo = test.silo_nums[start]
        mine = self.cold_rows[(self.cold_rows >= start) & (self.cold_rows < stop)]
        ranking = _rank(scores, test.hidden[start:stop], test.sold[silo], LIST_LENGTH)
        cold = _rank(scores[mine - start], test.hidden[mine], test.cold[silo], COLD_LENGTH)
        for into, part in ((self.by_system, ranking), (self.cold_by_system, cold)):
            into[system] = np.concatenate([into[system], part]) if system in into else part

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the body's time to stage `name`."""
        start = time.perf_counter()
        yield
        spent = time.perf_counter() - start
        self.timings_s[name] = round(self.timings_s.get(name, 0.0) + spent, 3)


def rank_published(
    rankings: Rankings,
    silos: Sequence[SiloDataset],
    parts: GlobalParts,
    scenario: Scenario,
) -> None:
    """Rank with what needs nothing but releases: DP popularity, each part, all of them fused."""
    repeats = scenario.dataset.keep_repeats
    now = day_of(scenario.dataset.test_from)
    single = parts.names[:-1] if len(parts.names) > 2 else ()  # noqa: PLR2004
    start = 0
    for silo in silos:
        for fold in batches(silo.test):
            timelines = as_timelines(silo, fold.user_nums, fold.history, now)
            popular = np.tile(parts.model.noisy_popularity, (timelines.n_users, 1))
            rankings.rank_silo("dp_popularity", popular, start)
            for name in single:
                with rankings.timed(f"global {name}"):
                    rankings.rank_silo(f"global_{name}", parts.score(name, timelines), start)
            with rankings.timed("global"):
                mask = never_ranked(timelines, repeats=repeats)
                rankings.rank_silo("global", parts.fused(timelines, mask), start)
            start += len(fold.user_nums)


def _rank(
    scores: NDArray[np.float32], hidden: csr_matrix, among: NDArray[np.bool_], k: int
) -> NDArray[np.int64]:
    """Return (n_users, k) item numbers of `among`, best first, -1 where none is left."""
    if among.all():
        return rank_topk(scores, hidden, k)
    items = np.flatnonzero(among)
    places = rank_topk(scores[:, items], hidden[:, items], k)
    return np.where(places >= 0, np.append(items, -1)[places], -1)


def batches(fold: Fold) -> Iterator[Fold]:
    """Parts of the fold: a silo of thousands would need a gigabyte for its scores."""
    for start in range(0, len(fold.user_nums), BATCH_USERS):
        chosen = fold.user_nums[start : start + BATCH_USERS]
        yield fold.of(chosen)
