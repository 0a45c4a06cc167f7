"""Reconstruction from one silo's share: which items did one customer take?

The attacker holds one vector and guesses a customer's items from it. `knows all` knows every
other customer whose numbers are in it, as in the definition of the guarantee, `knows half` also
every second item of the customer and wants the others, `knows none` nothing of anybody.

A `View` says what vector it is. Whatever the plan: the silo's noisy share, as it is seen in the
clear; the share with the whole noise of the joint release; the bare sum, which shows that the
attack works. With masked sums also the two that the coordinator really gets: the share under its
masks (`masks`), and the sum over all silos, from which he takes his own silos' shares.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.models.gram import unpack_gram
from fondaco.shared.privacy.clipping import ClippedSum, gram_sum
from fondaco.shared.privacy.events import EVERYBODY, PrivacyEvent
from fondaco.shared.privacy.gradients import GradientSum
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.privacy.plan import MASKED as MASKED_SUM
from fondaco.shared.privacy.plan import RunPlan

from .bounds import auc
from .canaries import Tell
from .gradient_targets import Gradients
from .masks import MaskedCohort
from .mechanisms import Array, noisy_sum
from .world import Basket, histories_of

SHARE, MASKED, SUM, FULL, BARE = "share", "masked", "sum", "full noise", "no noise"
See = Callable[[ClippedSum, PrivacyEvent, NoiseStream, int], Array]
"""(clipped sum, its planned release, noise, number of the release) -> (dim,) [clip norms]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What somebody sees of a release.

    Attributes:
        see: makes the vector.
        whole: whether of all honest silos' sum; else of the one silo's.
    """

    see: See
    whole: bool = False


def share(total: ClippedSum, event: PrivacyEvent, noise: NoiseStream, num: int) -> Array:
    """Return the silo's share, as it is in the clear."""
    del num
    return noisy_sum(total, event.silo_stddev_grid, noise) / total.sens_grid


def full_noise(total: ClippedSum, event: PrivacyEvent, noise: NoiseStream, num: int) -> Array:
    """Return the sum with all the noise that the joint release carries."""
    del num
    return noisy_sum(total, event.stddev_grid, noise) / total.sens_grid


def bare(total: ClippedSum, event: PrivacyEvent, noise: NoiseStream, num: int) -> Array:
    """Return the sum without noise."""
    del event, noise, num
    return np.asarray(total.values / total.sens_grid)


VIEWS: Mapping[str, View] = {
    SHARE: View(see=share),
    FULL: View(see=full_noise),
    BARE: View(see=bare),
}
"""What is there with every plan."""


def views_of(plan: RunPlan, seed: int) -> Mapping[str, View]:
    """Return all views of a plan's releases.

    Args:
        plan: of a simulation.
        seed: from which its silos' identities follow.
    """
    if plan.secure_aggregation != MASKED_SUM:
        return VIEWS
    cohort = MaskedCohort(plan, seed)

    def masked(total: ClippedSum, event: PrivacyEvent, noise: NoiseStream, num: int) -> Array:
        numbers = noisy_sum(total, event.silo_stddev_grid, noise)
        return cohort.seen(numbers, event, num) / total.sens_grid

    def unmasked(total: ClippedSum, event: PrivacyEvent, noise: NoiseStream, num: int) -> Array:
        del num
        stddev_grid = round(event.silo_stddev_grid * np.sqrt(len(cohort.honest)))
        return noisy_sum(total, stddev_grid, noise) / total.sens_grid

    return {**VIEWS, MASKED: View(see=masked), SUM: View(see=unmasked, whole=True)}


_RARE = 1e-3
_TRIED = (4, 8, 16, 32, 64)
"""Sizes of baskets that are tried where a direction may be read either way."""
KNOWS_ALL, KNOWS_HALF, KNOWS_NONE = ATTACKERS = ("knows all", "knows half", "knows none")


class Statistic(Protocol):
    """A released sum whose parts can be read back."""

    head: NDArray[np.int64]

    def total(self, baskets: Sequence[Basket]) -> ClippedSum:
        """Return the core's clipped sum over `baskets`."""

    def guess(self, seen: Array, hint: Array | None) -> Array:
        """Return (n_head,) how likely each item of the head is one customer's own [1].

        Args:
            seen: (dim,) what is left of the release [clip norms].
            hint: (dim,) what the items would add that are known already, if any.
        """


class GramStatistic:
    """The Gram of the head: a customer adds x x^T / n, whose first direction is x."""

    def __init__(self, head: NDArray[np.int64], n_items: int, grid: int) -> None:
        self.head = head
        self._n_items = n_items
        self._grid = grid

    def total(self, baskets: Sequence[Basket]) -> ClippedSum:
        """Return the Gram of these customers."""
        return gram_sum(histories_of(baskets, self._n_items).restrict(self.head), self._grid)

    def guess(self, seen: Array, hint: Array | None) -> Array:
        """Return the first direction of what is seen, or what stands beside the known items."""
        known = unpack_gram(seen if hint is None else hint)
        first = _towards(np.linalg.eigh(known)[1][:, -1])
        return first if hint is None else np.asarray(unpack_gram(seen) @ first)


class GradientStatistic:
    """One gradient: the items are a direction of the table that reads or scores them."""

    def __init__(self, gradients: Gradients, parameters: NDArray[np.float32]) -> None:
        self.head = gradients.facts.model.head
        self._gradients = gradients
        self._parameters = parameters

    def total(self, baskets: Sequence[Basket]) -> ClippedSum:
        """Return the clipped gradients of these customers, added up."""
        everybody = NoiseStream.seeded(0).sample(len(baskets), EVERYBODY)
        of = self._gradients
        total = GradientSum(of.dim, of.clip_norm, of.grid, everybody)
        total.add(everybody.user_nums, of.of(baskets, self._parameters))
        return total.total()

    def guess(self, seen: Array, hint: Array | None) -> Array:
        """Return the side over items of the first singular pair.

        The autoencoder's first table reads the history: its gradient is an outer product with
        the items themselves. That of mf scores them: items that were taken are pushed up, which
        in a gradient is down. A hint gives the other side of the pair.
        """
        told = seen if hint is None else hint
        items, other = self._first_pair(told)
        found = items if hint is None else self._table(seen) @ other
        return np.asarray(self._sign(items, told) * found)

    def _sign(self, items: Array, told: Array) -> float:
        """1 if large entries of `items` are own, -1 if small ones are.

        A history has no negative entries; for mf, baskets of either end are tried.
        """
        if self._gradients.kind != "mf":
            return 1.0 if float((items**3).sum()) >= 0 else -1.0
        orders = (np.argsort(-items), np.argsort(items))
        alike = [max(self._alike(self.head[order[:n]], told) for n in _TRIED) for order in orders]
        return 1.0 if alike[0] >= alike[1] else -1.0

    def _alike(self, basket: Basket, told: Array) -> float:
        return float(self.total([np.sort(basket)]).values @ told)

    def _first_pair(self, seen: Array) -> tuple[Array, Array]:
        left, _, right = np.linalg.svd(self._table(seen), full_matrices=False)
        return left[:, 0], right[0]

    def _table(self, seen: Array) -> Array:
        """(n_head, width) the gradient of the table whose rows tell of own items."""
        n_head = len(self.head)
        if self._gradients.kind == "mf":
            return seen.reshape(n_head, -1)
        return seen[: len(seen) // 2].reshape(-1, n_head).T


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """How well one customer's items were told, over many customers.

    Attributes:
        auc: (n_victims,) chance that an own item is above another [probability].
        precision: (n_victims,) own items among as many guesses as there are [probability].
        joined_auc: (n_victims,) the same, with public popularity added to what is seen.
        popularity_auc: (n_victims,) the same of public popularity alone.
    """

    auc: Array
    precision: Array
    joined_auc: Array
    popularity_auc: Array


def reconstruct(
    statistic: Statistic,
    event: PrivacyEvent,
    cohort: tuple[Sequence[Basket], Sequence[Basket]],
    n_victims: int,
    seed: int,
    *,
    views: Mapping[str, View],
    knows: str,
    popularity: Array,
    tell: Tell,
) -> dict[str, Found]:
    """Attack the first `n_victims` customers of a silo, each by a release of its own.

    Args:
        statistic: what is released.
        event: the planned release.
        cohort: the silo's customers, and those of all other honest silos.
        n_victims: customers attacked.
        seed: of the noise.
        views: what is seen.
        knows: one of ATTACKERS.
        popularity: (n_head,) of everybody, public.
        tell: told after each victim.
    """
    silo, others = cohort
    totals = {False: statistic.total(silo)}
    if any(view.whole for view in views.values()):
        totals[True] = statistic.total([*silo, *others])
    values: dict[str, list[tuple[float, ...]]] = {name: [] for name in views}
    for num, victim in enumerate(silo[:n_victims]):
        own = statistic.total([victim]).values
        for name, view in views.items():
            total, noise = totals[view.whole], NoiseStream.seeded(seed, "reconstruct", str(num))
            seen = view.see(total, event, noise, num)
            if knows != KNOWS_NONE:
                seen = seen - (total.values - own) / total.sens_grid
            values[name].append(_success_on(statistic, seen, victim, knows, popularity))
        tell()
    return {name: _found(told) for name, told in values.items()}


def _found(values: Sequence[tuple[float, ...]]) -> Found:
    told = np.array(values).T
    return Found(auc=told[0], precision=told[1], joined_auc=told[2], popularity_auc=told[3])


def _success_on(
    statistic: Statistic, seen: Array, basket: Basket, knows: str, popularity: Array
) -> tuple[float, ...]:
    """What `Found` holds of one victim, on the items that are not known already."""
    known = basket[::2] if knows == KNOWS_HALF else basket[:0]
    hint = _alone(statistic, known) if len(known) else None
    unknown = ~np.isin(statistic.head, known)
    guess = statistic.guess(seen, hint)[unknown]
    public = np.log(np.maximum(popularity, _RARE))[unknown]
    own = np.isin(statistic.head, basket)[unknown]
    joined = _standard(guess) + _standard(public)
    return (*success(guess, own), success(joined, own)[0], success(public, own)[0])


def _alone(statistic: Statistic, basket: Basket) -> Array:
    """Return (dim,) what a customer with this basket would add [clip norms]."""
    total = statistic.total([basket])
    return np.asarray(total.values / total.sens_grid)


def success(scores: Array, own: NDArray[np.bool_]) -> tuple[float, float]:
    """Return AUC and precision at the true number of items; half and 0 where there are none.

    Args:
        scores: (n_head,).
        own: (n_head,) the customer's items.
    """
    if not own.any() or own.all():
        return 0.5, float(own.all())
    best = np.argsort(-scores, kind="stable")[: int(own.sum())]
    return auc(scores[own], scores[~own]), float(own[best].mean())


def _standard(scores: Array) -> Array:
    return np.asarray((scores - scores.mean()) / max(float(scores.std()), 1e-12))


def _towards(direction: Array) -> Array:
    """The direction or its opposite: few items are own, so the longer tail is theirs."""
    return direction if float((direction**3).sum()) >= 0 else -direction
