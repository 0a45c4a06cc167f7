"""Canaries in the sums that are really released; here in Gram matrices.

A run holds base customers and those canaries whose coin fell on "in". Worst-case canaries move
the sum by as much as the core lets anybody; data canaries are customers with random baskets.
Both attackers know all other customers, as in the definition of the guarantee: what these are
expected to add is taken off before a canary is looked for.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.linalg as sla
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.shared.privacy.clipping import ClippedSum, gram_dim, gram_sum
from fondaco.shared.privacy.events import EVERYBODY
from fondaco.shared.privacy.noise import NoiseStream, Sample

from .mechanisms import Array, Claim
from .world import Basket, World, histories_of, timelines_of

EXACT = 1e-6
"""Variance that "exact" guesses count on."""
CANARY_ITEMS = 16
"""Items of a random basket over the head."""


class Run(Protocol):
    """Customers of one audited run; a `Contributors`."""

    @property
    def n_users(self) -> int:
        """Base customers and included canaries."""

    def clipped(self, sample: Sample) -> ClippedSum:
        """Return the core's clipped sum of the sampled customers."""

    def raw(self, sample: Sample) -> Array:
        """Return (dim,) the same sum without clipping [clip norms]."""

    def evidence(self, noisy: Array) -> Array:
        """Return (n_canaries,) inner products with what others leave of a release [1]."""

    def move(self, noisy: Array) -> None:
        """Go on to the next round as the server would."""


class Target(Protocol):
    """A released sum with canaries in it."""

    shares: Mapping[str, float]
    n_canaries: int

    @property
    def grid(self) -> int:
        """Grid units per clip norm, the plan's."""

    def start(self, included: NDArray[np.bool_]) -> Run:
        """Return a fresh run in which the canaries of `included` (n_canaries,) take part."""

    def scores(self, evidence: Array, norms: Array, claim: Claim) -> dict[str, Array]:
        """Return score function -> (n_canaries,).

        Args:
            evidence: (rounds, n_canaries).
            norms: (rounds,) of the releases [clip norms].
            claim: what the noise is said to be.
        """


def random_baskets(
    n_canaries: int, head: NDArray[np.int64], rng: np.random.Generator
) -> list[Basket]:
    """Return baskets of CANARY_ITEMS random items of `head` each."""
    size = min(CANARY_ITEMS, len(head))
    places = np.argsort(rng.random((n_canaries, len(head))), axis=1)[:, :size]
    return [head[row] for row in places]


class GramTarget:
    """The Gram of the head. Every basket has a contribution of norm 1: all are worst cases.

    Args:
        world: customers.
        n_base: of them that are no canaries.
        n_canaries: customers with random baskets.
        head: items of the Gram.
        rng: draws both.
        grid: of the plan [grid units per clip norm].
    """

    shares: Mapping[str, float] = {"decorrelated": 0.5, "exact": 0.3, "inner product": 0.2}

    def __init__(
        self,
        world: World,
        n_base: int,
        n_canaries: int,
        head: NDArray[np.int64],
        rng: np.random.Generator,
        *,
        grid: int,
    ) -> None:
        self.n_canaries = n_canaries
        self.head = head
        self.grid = grid
        self.n_items = len(world.catalogue)
        self.base = world.drawn(n_base, rng)
        self.canaries = random_baskets(n_canaries, head, rng)
        self._factors: dict[float, tuple[Array, bool]] = {}

    @cached_property
    def parts(self) -> csr_matrix:
        """(n_canaries, dim) what each canary adds [clip norms]."""
        size = len(self.head)
        lookup = np.zeros(self.n_items, dtype=np.int64)
        lookup[self.head] = np.arange(size)
        places = np.sort(lookup[np.stack(self.canaries)], axis=1)
        n = places.shape[1]
        first, second = np.triu_indices(n, 1)
        row, column = places[:, first], places[:, second]
        off = size + row * size - row * (row + 1) // 2 + column - row - 1
        values = np.concatenate([np.full(n, 1.0 / n), np.full(len(first), np.sqrt(2.0) / n)])
        columns = np.concatenate([places, off], axis=1)
        indptr = np.arange(len(places) + 1) * columns.shape[1]
        data = np.tile(values, len(places))
        return csr_matrix((data, columns.ravel(), indptr), shape=(len(places), gram_dim(size)))

    @cached_property
    def known(self) -> Array:
        """(dim, 3) orthonormal directions of what is no canary's own.

        The base customers' sum, clipped and not, and the mean canary: how much of each is in a
        release is not looked at, so a broken scale cannot hide what is left.
        """
        everybody = NoiseStream.seeded(0).sample(len(self.base), EVERYBODY)
        run = GramRun(self, self.base)
        mean = np.asarray(self.parts.mean(axis=0)).ravel()
        clipped = run.clipped(everybody).values / self.grid
        return np.asarray(np.linalg.qr(np.stack([clipped, run.raw(everybody), mean]).T)[0])

    @cached_property
    def alike(self) -> Array:
        """(n_canaries, n_canaries) inner products of what the canaries have of their own."""
        along = self.parts @ self.known
        return np.asarray((self.parts @ self.parts.T).toarray() - along @ along.T)

    def start(self, included: NDArray[np.bool_]) -> "GramRun":
        """Return a fresh run."""
        chosen = [basket for basket, coin in zip(self.canaries, included, strict=True) if coin]
        return GramRun(self, [*self.base, *chosen])

    def scores(self, evidence: Array, norms: Array, claim: Claim) -> dict[str, Array]:
        """Return inner products and linear guesses of the coins: best as claimed, best at none."""
        del norms
        total = evidence.sum(axis=0)
        variance = claim.noise_multiplier**2 / len(evidence)
        return {
            "decorrelated": sla.cho_solve(self._regular(variance), total),
            "exact": sla.cho_solve(self._regular(EXACT), total),
            "inner product": total,
        }

    def _regular(self, variance: float) -> tuple[Array, bool]:
        if variance not in self._factors:
            ridge = variance * np.eye(self.n_canaries)
            self._factors[variance] = sla.cho_factor(self.alike / 4 + ridge, lower=True)
        return self._factors[variance]

    def clipped(self, baskets: Sequence[Basket]) -> ClippedSum:
        """Return the core's sum over `baskets`."""
        return gram_sum(histories_of(baskets, self.n_items).restrict(self.head), self.grid)


class GramRun:
    """One run on the Gram."""

    def __init__(self, target: GramTarget, baskets: Sequence[Basket]) -> None:
        self._target = target
        self._baskets = baskets

    @property
    def n_users(self) -> int:
        """Base customers and included canaries."""
        return len(self._baskets)

    def clipped(self, sample: Sample) -> ClippedSum:
        """Return the core's Gram of the sampled customers."""
        return self._target.clipped([self._baskets[num] for num in sample.user_nums])

    def raw(self, sample: Sample) -> Array:
        """Return (dim,) the Gram in which nobody is divided by the number of items."""
        baskets = [self._baskets[num] for num in sample.user_nums]
        rows = timelines_of(baskets, self._target.n_items).incidence()[:, self._target.head]
        gram = (rows.T @ rows).toarray().astype(np.float64)
        upper = np.sqrt(2.0) * gram[np.triu_indices(len(gram), 1)]
        return np.concatenate([np.diag(gram), upper])

    def evidence(self, noisy: Array) -> Array:
        """Return (n_canaries,) inner products."""
        known = self._target.known
        return np.asarray(self._target.parts @ (noisy - known @ (known.T @ noisy)))

    def move(self, noisy: Array) -> None:
        """Stay: a Gram depends on nothing that was released before."""
