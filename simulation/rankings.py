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

from .baselines import Scorer, rank_by
from .scenario import Scenario

LIST_LENGTH = 100
BATCH_USERS = 512
"""Test customers of a silo that are scored at once."""
COLD_LENGTH = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class EvalSet:
    """Customers of one fold over all silos.

    Attributes:
        history: (n_eval, n_items) 0/1, known when recommending.
        targets: (n_eval, n_items) 0/1.
        mask: (n_eval, n_items) items that are never ranked: the history, unless repeats count,
            and what the silo does not sell.
        silo_nums: (n_eval,) position of each customer's silo.
    """

    history: csr_matrix
    targets: csr_matrix
    mask: csr_matrix
    silo_nums: NDArray[np.int64]


def pool(silos: Sequence[SiloDataset], fold: str, *, keep_repeats: bool) -> EvalSet:
    """Return the `valid` or `test` customers of all silos, in the silos' order."""
    parts = [(getattr(silo, fold), silo) for silo in silos]
    masks = [
        csr_matrix(never_ranked(as_timelines(s, f.user_nums, f.history, 0.0), repeats=keep_repeats))
        for f, s in parts
    ]
    return EvalSet(
        history=vstack([f.history_matrix(s.n_items) for f, s in parts], format="csr"),
        mask=vstack(masks, format="csr"),
        targets=vstack([f.target_matrix(s.n_items) for f, s in parts], format="csr"),
        silo_nums=np.repeat(np.arange(len(parts)), [len(f.user_nums) for f, _ in parts]),
    )


def pool_training(silos: Sequence[SiloDataset]) -> csr_matrix:
    """Return the (customers, n_items) 0/1 training rows of all silos."""
    return vstack([s.train.incidence(s.n_users, s.n_items) for s in silos], format="csr")


class Rankings:
    """Rankings of the test customers by system, and how long each took.

    Items that nobody took in training are also ranked among themselves, for the customers who
    took one: beside items with a past they would hardly ever be seen.
    """

    def __init__(self, test: EvalSet, train: csr_matrix) -> None:
        self.test = test
        self.popularity: NDArray[np.float64] = np.asarray(train.sum(axis=0)).ravel()
        self.cold_items = np.flatnonzero(self.popularity == 0)
        cold_targets = test.targets[:, self.cold_items].tocsr()
        self.cold_rows = np.flatnonzero(np.diff(cold_targets.indptr))
        self.cold_targets = cold_targets[self.cold_rows]
        self.by_system: dict[str, NDArray[np.int64]] = {}
        self.cold_by_system: dict[str, NDArray[np.int64]] = {}
        self.timings_s: dict[str, float] = {}

    def rank(self, system: str, scorer: Scorer) -> None:
        """Rank every test customer's items by `scorer`."""
        test, rows, items = self.test, self.cold_rows, self.cold_items
        self.by_system[system] = rank_by(scorer, test.history, LIST_LENGTH, mask=test.mask)
        self.cold_by_system[system] = rank_by(
            lambda history, nums: scorer(history, rows[nums])[:, items],
            test.history[rows],
            COLD_LENGTH,
            mask=test.mask[rows][:, items],
        )

    def rank_silo(self, system: str, scores: NDArray[np.float32], start: int) -> None:
        """Rank the items of consecutive test customers from row `start` on; silos in order."""
        stop = start + len(scores)
        mine = self.cold_rows[(self.cold_rows >= start) & (self.cold_rows < stop)]
        ranking = rank_topk(scores, self.test.mask[start:stop], LIST_LENGTH)
        cold = rank_topk(
            scores[mine - start][:, self.cold_items],
            self.test.mask[mine][:, self.cold_items],
            COLD_LENGTH,
        )
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


def batches(fold: Fold) -> Iterator[Fold]:
    """Parts of the fold: a silo of thousands would need a gigabyte for its scores."""
    for start in range(0, len(fold.user_nums), BATCH_USERS):
        chosen = fold.user_nums[start : start + BATCH_USERS]
        yield fold.of(chosen)
