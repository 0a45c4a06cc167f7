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
from fondaco.shared.records import GlobalModel

from ..dataset import Fold, SiloDataset
from .planes import Asked, Named, Plane, Scorers
from .tuning import SIDE_START, Judge, averaging_weights, tune_sides

PARTS = ("global", "own", "content")
TRUST_GRID = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
LEAST_BASE = 0.05
"""A stacked base weight below this counts as this."""
_NO_SPREAD = 1e-9


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Weights of named planes: bases are averaged and brought to scale, sides stand beside."""

    bases: Mapping[str, float]
    sides: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """Scores of one set of customers and what each part gave.

    Attributes:
        scores: (n_users, n_items).
        parts: part -> (n_users, n_items); they add up to `scores`.
    """

    scores: Plane
    parts: Mapping[str, Plane]


class Recommender:
    """A silo's recommender; made by `fit_recommender`.

    Attributes:
        mixes: mix of the silo alone and together with everybody, whichever exist.
        trust: weight of the latter [0 to 1].
    """

    def __init__(self, scorers: Scorers, fuser: Fuser, mixes: Sequence[tuple[Mix, float]]) -> None:
        self._scorers = scorers
        self._fuser = fuser
        self._mixes = mixes

    @property
    def mix(self) -> dict[str, float]:
        """Weight of every plane in the final score, for reports and explanations."""
        total: dict[str, float] = {}
        for mix, share in self._mixes:
            for name, weight in (*mix.bases.items(), *mix.sides.items()):
                total[name] = round(total.get(name, 0.0) + share * weight, 4)
        return total

    def score_fold(self, fold: Fold) -> Plane:
        """Return (n_eval, n_items) scores of the fold's customers."""
        return self.explain(self._scorers.ask(fold)).scores

    def explain_fold(self, fold: Fold) -> Explained:
        """Return the scores of the fold's customers, split by part."""
        return self.explain(self._scorers.ask(fold))

    def explain(self, asked: Asked) -> Explained:
        """Return the scores of `asked`, split by part."""
        mask = _dense(asked.history)
        planes = list(self._scorers.planes(asked))
        parts = {part: np.zeros(mask.shape, dtype=np.float32) for part in PARTS}
        for mix, share in self._mixes:
            for part, plane in _fuse(planes, mix, mask, self._fuser).items():
                parts[part] += np.float32(share) * plane
        return Explained(scores=np.sum(list(parts.values()), axis=0), parts=parts)


def fit_recommender(
    dataset: SiloDataset,
    catalogue: Catalogue,
    model: GlobalModel | None,
    knobs: FusionConfig,
    metric: str,
) -> Recommender:
    """Fit a silo's recommender on its training rows and tune its mix on its validation rows.

    Args:
        dataset: the silo's rows; `dataset.test` is not read.
        catalogue: the public items.
        model: everybody's model; None for what the silo can do without anybody.
        knobs: which parts take part, and the fuser.
        metric: tuned for, such as "ndcg@20".

    Raises:
        ConfigError: the metric is unknown.
    """
    scorers = Scorers(
        dataset,
        catalogue,
        model,
        own=knobs.personal == "own" or model is None,
        content=knobs.content,
        half_life_days=knobs.half_life_days,
    )
    fuser = FUSERS[knobs.fuser]
    asked = scorers.ask(dataset.valid)
    judge = Judge(
        _dense(asked.history),
        _dense(dataset.valid.target_matrix(dataset.n_items)),
        parse_metric(metric).k,
    )
    planes = list(scorers.planes(asked))
    listwise = knobs.fuser == "stacked"
    together = _fit(planes, judge, fuser, listwise=listwise)
    alone_planes = [plane for plane in planes if plane.part != "global"]
    if model is None or not any(plane.is_base for plane in alone_planes):
        return Recommender(scorers, fuser, [(together, 1.0)])
    alone = _fit(alone_planes, judge, fuser, listwise=listwise)
    trust = _trust(planes, alone, together, judge, fuser)
    return Recommender(scorers, fuser, [(alone, 1.0 - trust), (together, trust)])


def _fit(planes: Sequence[Named], judge: Judge, fuser: Fuser, *, listwise: bool) -> Mix:
    bases = [plane for plane in planes if plane.is_base]
    sides = [plane for plane in planes if not plane.is_base]
    ready = [fuser.prepare(plane.scores, judge.mask) for plane in bases]
    weights = averaging_weights(np.stack([judge(plane) for plane in ready]))
    base = fuser.fuse(ready, weights)
    base = np.asarray(base / _spread(base, judge.mask), dtype=np.float32)
    beside = [fuser.prepare(plane.scores, judge.mask) for plane in sides]
    if listwise:
        prior = np.array([1.0, *[SIDE_START] * len(sides)])
        fitted = fit_listwise([base, *beside], judge.mask, judge.targets, prior)
        side_weights = fitted[1:] / max(float(fitted[0]), LEAST_BASE)
    else:
        side_weights = tune_sides(base, beside, judge, fuser)
    return Mix(
        bases={p.name: float(w) for p, w in zip(bases, weights, strict=True)},
        sides={p.name: float(w) for p, w in zip(sides, side_weights, strict=True)},
    )


def _trust(planes: Sequence[Named], alone: Mix, together: Mix, judge: Judge, fuser: Fuser) -> float:
    """Weight of the mix that includes everybody's model, on the silo's own validation rows."""
    by_itself = _total(_fuse(planes, alone, judge.mask, fuser))
    joined = _total(_fuse(planes, together, judge.mask, fuser))
    values = [judge((1.0 - x) * by_itself + x * joined) for x in TRUST_GRID.astype(np.float32)]
    return float(averaging_weights(np.stack(values)) @ TRUST_GRID)


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


def _dense(matrix: csr_matrix) -> NDArray[np.bool_]:
    return np.asarray(matrix.toarray() > 0)
