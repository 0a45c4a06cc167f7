"""Recommender: planes -> one score per item, with a mix learned on the silo's own validation.

The mix nests what the silo could do alone: `fused = (1 - trust) alone + trust together`, trust
learned like everything else, so that joining can always be turned down.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.config import FusionConfig
from fondaco.shared.fusion import FUSERS, Fuser
from fondaco.shared.fusion.stacked import fit_listwise
from fondaco.shared.metrics import parse_metric
from fondaco.shared.models.published import GlobalParts, never_ranked

from ..dataset import Fold, Rows, SiloDataset
from .planes import Asked, Named, Plane, Scorers
from .tuning import (
    BASE_SHARPNESS,
    SIDE_START,
    TRUST_GRID,
    TRUST_SHARPNESS,
    Judge,
    averaging_weights,
    trust_prior,
    tune_sides,
)
from .unsold import reorder, unsold_weight

PARTS = ("global", "own", "content")
MAX_JUDGED = 500
"""Validation customers that tuning looks at; evenly spaced where a silo has more."""
LEAST_BASE = 0.05
"""A stacked base weight below this counts as this."""
LEAST_POPULARITY = 1e-3
"""Weight that popularity keeps: all that is known to customers without a history."""
_NO_SPREAD = 1e-9


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Weights of named planes: bases are averaged and brought to scale, sides stand beside."""

    bases: Mapping[str, float]
    sides: Mapping[str, float]

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """Every plane's name and weight."""
        return (*self.bases.items(), *self.sides.items())


@dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """Scores of one set of customers and what each part gave.

    Attributes:
        scores: (n_users, n_items).
        parts: part -> (n_users, n_items); they add up to `scores`.
        alone: (n_users, n_items), what the silo would say without anybody else; None where
            own statistics take no part.
    """

    scores: Plane
    parts: Mapping[str, Plane]
    alone: Plane | None


class Recommender:
    """A silo's recommender; made by `fit_recommender`.

    Args:
        scorers: what it can score with.
        fuser: how planes become one.
        alone: mix of the silo's own planes, None where they take no part.
        together: mix that includes everybody's model, None without one.
        trust: weight of `together` [0 to 1].
        unsold: weight of everybody's model in the order of items that the silo never sold.
    """

    def __init__(
        self,
        scorers: Scorers,
        fuser: Fuser,
        *,
        alone: Mix | None,
        together: Mix | None,
        trust: float,
        unsold: float = 0.0,
    ) -> None:
        self._scorers = scorers
        self._fuser = fuser
        self._alone = alone
        self._together = together
        self._trust = trust
        self._unsold = unsold

    @property
    def mix(self) -> dict[str, float]:
        """Weight of every plane in the final score, for reports and explanations."""
        total: dict[str, float] = {}
        for mix, share in ((self._alone, 1.0 - self._trust), (self._together, self._trust)):
            for name, weight in mix.weights if mix else ():
                total[name] = round(total.get(name, 0.0) + share * weight, 4)
        return total

    def score(self, fold: Fold, known: Rows) -> Explained:
        """Return the scores of the fold's customers, split by part.

        Args:
            fold: customers and their histories.
            known: all rows that the silo has by then, of all customers.
        """
        spread = self._scorers.shelf.spread
        asked = self._scorers.ask(fold, known)
        mask = _mask(asked, self._scorers)
        planes = list(self._scorers.planes(asked))
        parts, alone = self.mixed(planes, mask)
        everybodys = self._scorers.of_unsold(asked) if self._unsold else None
        if everybodys is not None:
            mixed = _total(parts)
            beside = np.float32(self._unsold) * self._fuser.prepare(everybodys, mask)
            parts["global"] += reorder(mixed, mixed + beside, asked.unsold) - mixed
        return Explained(
            scores=spread(_total(parts)),
            parts={part: spread(plane) for part, plane in parts.items()},
            alone=None if alone is None else spread(alone),
        )

    def mixed(
        self, planes: Sequence[Named], mask: NDArray[np.bool_]
    ) -> tuple[dict[str, Plane], Plane | None]:
        """Return each part's share of the mix, and what the silo would say by itself."""
        parts = {part: np.zeros(mask.shape, dtype=np.float32) for part in PARTS}
        alone = None
        if self._alone is not None:
            by_itself = _fuse(planes, self._alone, mask, self._fuser)
            alone = _total(by_itself)
            _add(parts, by_itself, 1.0 - self._trust)
        if self._together is not None:
            _add(parts, _fuse(planes, self._together, mask, self._fuser), self._trust)
        return parts, alone

    def ordering_unsold(self, asked: Asked, planes: Sequence[Named], judge: Judge) -> "Recommender":
        """Return the recommender with a weight of everybody's model for items never sold.

        Args:
            asked: the validation customers.
            planes: their scores.
            judge: what they took.
        """
        everybodys = self._scorers.of_unsold(asked)
        if everybodys is None:
            return self
        mixed = _total(self.mixed(planes, judge.mask)[0])
        prepared = self._fuser.prepare(everybodys, judge.mask)
        return Recommender(
            self._scorers,
            self._fuser,
            alone=self._alone,
            together=self._together,
            trust=self._trust,
            unsold=unsold_weight(mixed, prepared, asked.unsold, judge),
        )

    def content(self, fold: Fold, known: Rows) -> Plane:
        """Return (n_users, n_items) likeness to the history alone; arguments as `score`."""
        return self._scorers.shelf.spread(self._scorers.likeness(self._scorers.ask(fold, known)))


def _add(parts: dict[str, Plane], more: Mapping[str, Plane], share: float) -> None:
    for part, plane in more.items():
        parts[part] += np.float32(share) * plane


def fit_recommender(
    dataset: SiloDataset,
    catalogue: Catalogue,
    parts: GlobalParts | None,
    knobs: FusionConfig,
    *,
    metric: str,
    declared_users: int,
    repeats: bool = False,
) -> Recommender:
    """Fit a silo's recommender on its training rows and tune its mix on its validation rows.

    Args:
        dataset: the silo's rows; `dataset.test` is not read.
        catalogue: the public items.
        parts: everybody's model; None for what the silo can do without anybody.
        knobs: which parts take part, and the fuser.
        metric: tuned for, such as "ndcg@20".
        declared_users: publicly declared rough number of customers over all silos.
        repeats: whether an item of the history may be recommended again.

    Raises:
        ConfigError: the metric is unknown.
    """
    scorers = Scorers(
        dataset,
        catalogue,
        parts,
        own=knobs.personal == "own" or parts is None,
        content=knobs.content,
        half_life_days=knobs.half_life_days,
        repeats=repeats,
    )
    fuser = FUSERS[knobs.fuser]
    fold = _at_most(dataset.valid, MAX_JUDGED)
    asked = scorers.ask(fold, dataset.train)
    judge = Judge(
        _mask(asked, scorers),
        _dense(scorers.shelf.fold(fold).target_matrix(len(scorers.shelf.items))),
        parse_metric(metric).k,
    )
    planes = list(scorers.planes(asked))
    listwise = knobs.fuser == "stacked"
    by_itself = [plane for plane in planes if plane.part != "global"]
    alone = None
    if any(plane.is_base for plane in by_itself):
        alone = _fit(by_itself, judge, fuser, listwise=listwise)
    if parts is None:
        return Recommender(scorers, fuser, alone=alone, together=None, trust=0.0)
    together = _fit(_joined(planes), judge, fuser, listwise=listwise)
    trust = 1.0
    if alone is not None:
        prior = trust_prior(_signal(parts, dataset, declared_users))
        trust = _trust(planes, alone, together, judge, fuser, prior=prior)
    fitted = Recommender(scorers, fuser, alone=alone, together=together, trust=trust)
    return fitted.ordering_unsold(asked, planes, judge)


def _joined(planes: Sequence[Named]) -> list[Named]:
    """Planes of the mix with everybody's model: its bases, or the silo's where it has none."""
    joined = [plane for plane in planes if plane.part == "global" or not plane.is_base]
    return joined if any(plane.is_base for plane in joined) else list(planes)


def _signal(parts: GlobalParts, dataset: SiloDataset, declared_users: int) -> float:
    """Squared signal of everybody's model over the silo's own.

    Only a Gram has a noise edge to tell it by; other models must show their worth at home.
    """
    if not parts.has_gram:
        return 0.0
    return declared_users / float(parts.model.noise_edge) / max(_n_trained(dataset), 1)


def _at_most(fold: Fold, n_users: int) -> Fold:
    """The fold with at most `n_users` of its customers, evenly spaced."""
    if len(fold.user_nums) <= n_users:
        return fold
    chosen = fold.user_nums[np.linspace(0, len(fold.user_nums) - 1, n_users).astype(np.int64)]
    return fold.of(chosen)


def _n_trained(dataset: SiloDataset) -> int:
    return len(np.unique(dataset.train.user_nums))


def _fit(planes: Sequence[Named], judge: Judge, fuser: Fuser, *, listwise: bool) -> Mix:
    bases = [plane for plane in planes if plane.is_base]
    sides = [plane for plane in planes if not plane.is_base]
    ready = [fuser.prepare(plane.scores, judge.mask) for plane in bases]
    weights = averaging_weights(np.stack([judge(plane) for plane in ready]), BASE_SHARPNESS)
    base = fuser.fuse(ready, weights)
    base = np.asarray(base / _spread(base, judge.mask), dtype=np.float32)
    beside = [fuser.prepare(plane.scores, judge.mask) for plane in sides]
    if listwise:
        prior = np.array([1.0, *[SIDE_START] * len(sides)])
        fitted = fit_listwise([base, *beside], judge.mask, judge.targets, prior)
        side_weights = fitted[1:] / max(float(fitted[0]), LEAST_BASE)
    else:
        side_weights = tune_sides(base, beside, judge, fuser)
    least = [0.0 if plane.part == "content" else LEAST_POPULARITY for plane in sides]
    side_weights = np.maximum(side_weights, least)
    return Mix(
        bases={p.name: float(w) for p, w in zip(bases, weights, strict=True)},
        sides={p.name: float(w) for p, w in zip(sides, side_weights, strict=True)},
    )


def _trust(
    planes: Sequence[Named],
    alone: Mix,
    together: Mix,
    judge: Judge,
    fuser: Fuser,
    *,
    prior: NDArray[np.float64],
) -> float:
    """Weight of the mix that includes everybody's model, on the silo's own validation rows."""
    by_itself = _total(_fuse(planes, alone, judge.mask, fuser))
    joined = _total(_fuse(planes, together, judge.mask, fuser))
    values = [judge((1.0 - x) * by_itself + x * joined) for x in TRUST_GRID.astype(np.float32)]
    return float(averaging_weights(np.stack(values), TRUST_SHARPNESS, prior) @ TRUST_GRID)


def _fuse(
    planes: Sequence[Named], mix: Mix, mask: NDArray[np.bool_], fuser: Fuser
) -> dict[str, Plane]:
    """Return what each part gives; the sum is brought to unit spread per customer."""
    bases = [plane for plane in planes if mix.bases.get(plane.name)]
    ready = [fuser.prepare(plane.scores, mask) for plane in bases]
    weights = np.array([mix.bases[plane.name] for plane in bases])
    parts = {part: np.zeros(mask.shape, dtype=np.float32) for part in PARTS}
    for plane, scores, weight in zip(bases, ready, weights, strict=True):
        parts[plane.part] += np.float32(weight) * scores
    scale = _spread(_total(parts), mask)
    parts = {part: plane / scale for part, plane in parts.items()}
    for plane in planes:
        weight = mix.sides.get(plane.name, 0.0)
        if weight:
            parts[plane.part] += np.float32(weight) * fuser.prepare(plane.scores, mask)
    scale = _spread(_total(parts), mask)
    return {part: plane / scale for part, plane in parts.items()}


def _total(parts: Mapping[str, Plane]) -> Plane:
    return np.asarray(np.sum(list(parts.values()), axis=0), dtype=np.float32)


def _spread(plane: Plane, mask: NDArray[np.bool_]) -> Plane:
    """(n_users, 1) standard deviation over the items not masked, 1 where there is none."""
    counts = np.maximum((~mask).sum(axis=1, keepdims=True), 1)
    mean = np.where(mask, 0.0, plane).sum(axis=1, keepdims=True) / counts
    square = np.where(mask, 0.0, (plane - mean) ** 2).sum(axis=1, keepdims=True) / counts
    spread = np.sqrt(square)
    return np.asarray(np.where(spread > _NO_SPREAD, spread, 1.0), dtype=np.float32)


def _mask(asked: Asked, scorers: Scorers) -> NDArray[np.bool_]:
    """(n_users, n_items) what is never recommended."""
    return never_ranked(asked.timelines, repeats=scorers.repeats)


def _dense(matrix: csr_matrix) -> NDArray[np.bool_]:
    return np.asarray(matrix.toarray() > 0)
