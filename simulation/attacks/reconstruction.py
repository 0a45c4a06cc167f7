"""Reconstruction from one silo's share: which items did one customer take?

The attacker holds one vector of a silo and guesses a customer's items from it. `knows all` knows
every other customer of the silo, as in the definition of the guarantee, `knows half` also every
second item of the customer and wants the others, `knows none` nothing of anybody.
`VIEWS` says what vector it is: the noisy share that is seen where masking broke, the share with
the whole noise of the joint release, or the bare sum, which shows that the attack works.
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
from fondaco.shared.privacy.plan import GRID

from .bounds import auc
from .canaries import Tell
from .gradient_targets import Gradients
from .mechanisms import Array, noisy_sum
from .world import Basket, histories_of

View = Callable[[ClippedSum, PrivacyEvent, NoiseStream], Array]
"""(a silo's clipped sum, its planned release, noise) -> (dim,) what is seen [clip norms]."""


def share(total: ClippedSum, event: PrivacyEvent, noise: NoiseStream) -> Array:
    """Return the silo's share, as it is where masking broke."""
    return noisy_sum(total, event.silo_stddev_grid, noise) / total.sens_grid


def full_noise(total: ClippedSum, event: PrivacyEvent, noise: NoiseStream) -> Array:
    """Return the sum with all the noise that the joint release carries."""
    return noisy_sum(total, event.stddev_grid, noise) / total.sens_grid


def bare(total: ClippedSum, event: PrivacyEvent, noise: NoiseStream) -> Array:
    """Return the sum without noise."""
    del event, noise
    return np.asarray(total.values / total.sens_grid)


VIEWS: Mapping[str, View] = {"share": share, "full noise": full_noise, "no noise": bare}
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

    def __init__(self, head: NDArray[np.int64], n_items: int) -> None:
        self.head = head
        self._n_items = n_items

    def total(self, baskets: Sequence[Basket]) -> ClippedSum:
        """Return the Gram of these customers."""
        return gram_sum(histories_of(baskets, self._n_items).restrict(self.head), GRID)

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
        total = GradientSum(of.dim, of.clip_norm, GRID, everybody)
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
    silo: Sequence[Basket],
    n_victims: int,
    seed: int,
    *,
    view: View,
    knows: str,
    popularity: Array,
    tell: Tell,
) -> Found:
    """Attack the first `n_victims` customers of a silo, each by a release of its own.

    Args:
        statistic: what is released.
        event: the planned release.
        silo: its customers.
        n_victims: customers attacked.
        seed: of the noise.
        view: an entry of VIEWS.
        knows: one of ATTACKERS.
        popularity: (n_head,) of everybody, public.
        tell: told after each victim.
    """
    total = statistic.total(silo)
    values: list[tuple[float, ...]] = []
    for num in range(n_victims):
        seen = view(total, event, NoiseStream.seeded(seed, "reconstruct", str(num)))
        if knows != KNOWS_NONE:
            others = statistic.total([*silo[:num], *silo[num + 1 :]])
            seen = seen - others.values / others.sens_grid
        values.append(_success_on(statistic, seen, silo[num], knows, popularity))
        tell()
    told = np.array(values).T
    return Found(auc=told[0], precision=told[1], joined_auc=told[2], popularity_auc=told[3])


def _success_on(
    statistic: Statistic, seen: Array, basket: Basket, knows: str, popularity: Array
) -> tuple[float, ...]:
    """What `Found` holds of one victim, on the items that are not known already."""
    known = basket[::2] if knows == KNOWS_HALF else basket[:0]
    hint = statistic.total([known]).values / GRID if len(known) else None
    unknown = ~np.isin(statistic.head, known)
    guess = statistic.guess(seen, hint)[unknown]
    public = np.log(np.maximum(popularity, _RARE))[unknown]
    own = np.isin(statistic.head, basket)[unknown]
    joined = _standard(guess) + _standard(public)
    return (*success(guess, own), success(joined, own)[0], success(public, own)[0])


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
