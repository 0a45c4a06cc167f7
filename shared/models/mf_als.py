"""Matrix factorisation by few private sums: what is asked, what is made of the answers.

A release asks for B = sum_u r_u p_u' / (|r_u| |p_u|), where r_u is a customer's history over the
head (norm 1) without its part along popularity, and p_u = Q' r_u the customer's factor under the
orthonormal Q that was asked with. An outer product's norm is |r_u| |p_u|: every customer counts
for exactly one bound. B is, up to scale, G Q of the items' Gram G; from all releases so far

1. what public features and popularity explain of G is fitted and taken out;
2. the rest, whitened, goes through the optimal shrinkage of singular values;
3. G is put together, and the next Q are its leading directions, or in the end its leading
   factor F, with what is left on the diagonal as noise D: probabilistic factor analysis.

A customer's factor is then (I + F' D^-1 F)^-1 F' D^-1 x_u, the closed form of implicit ALS, and
an item is scored without its own share in the customer's factor, as in EASE.

Source: Chien et al. 2021; Gavish & Donoho 2017 (shrinkage).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.gradients import Factors

from .base import Array32, PublicFacts, Released
from .kernel_factors import NOTHING, HeadFacts, head_facts, leading, without
from .least_squares import nonnegative_fit

Array = NDArray[np.float64]

RANK = 128
RIDGE = 0.08
"""Added to D [noise edge of the releases taken together]."""
TAIL_RIDGE = 1e-2
BLOCK_SLOTS = 16
"""Numbers kept for the weights of feature blocks."""
SAME_QUESTION = 1e-2
"""Directions asked this much less than the most asked are left out: there two nearly equal
questions differ, and so do their answers by what the scale of a release is off."""
LEAST_REST = 1e-6
"""Squared norm below which what popularity leaves of a history is rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """What goes out: in the rounds the directions to ask with, in the end the solution.

    Attributes:
        asked: (M, width) Q.
        factors: (M, rank) F; in the rounds, like the rest, of an earlier run; zeros without one.
        diagonal: (M,) D.
        block_weights: (BLOCK_SLOTS,) how much of G every feature block explains.
    """

    asked: Array32
    factors: Array32
    diagonal: Array32
    block_weights: Array32

    def as_vector(self) -> Array32:
        """Return (n_numbers,) all of it."""
        parts = self.asked, self.factors, self.diagonal, self.block_weights
        return np.concatenate([part.ravel() for part in parts]).astype(np.float32)

    @classmethod
    def of_vector(cls, vector: Array32, size: int, width: int) -> "State":
        """Return what `as_vector` wrote, for a head of `size` items."""
        rank = min(RANK, size)
        ends = np.cumsum([size * width, size * rank, size])
        asked, factors, diagonal, weights = np.split(vector, ends)
        return cls(
            asked=asked.reshape(size, width),
            factors=factors.reshape(size, rank),
            diagonal=diagonal,
            block_weights=weights,
        )


def n_numbers(size: int, width: int) -> int:
    """Return the length of `State.as_vector` for a head of `size` items."""
    return size * (width + min(RANK, size) + 1) + BLOCK_SLOTS


def initial(known: HeadFacts, width: int) -> State:
    """Return the state before the first release: it asks along what features tell.

    Raises:
        ConfigError: there are more feature blocks than slots for their weights.
    """
    if len(known.blocks) > BLOCK_SLOTS:
        raise ConfigError(f"{len(known.blocks)} feature blocks, at most {BLOCK_SLOTS} fit")
    size = len(known.head)
    mean = mean_direction(known)
    weights = [1.0 / max(_trace_without(known, c, mean), NOTHING) for c in range(len(known.blocks))]
    guess = without(known.kernel(np.array(weights)), mean)
    return State(
        asked=directions(known, guess, width, 0),
        factors=np.zeros((size, min(RANK, size)), dtype=np.float32),
        diagonal=np.ones(size, dtype=np.float32),
        block_weights=np.zeros(BLOCK_SLOTS, dtype=np.float32),
    )


def projections(known: HeadFacts, asked: Array32, rows: Array32) -> Factors:
    """Return every customer's part of a release, of norm 1; zeros where nothing is told.

    Args:
        known: popularity of the head.
        asked: (M, width) Q.
        rows: (n_users, M) histories of norm 1 or empty.
    """
    mean = mean_direction(known)
    rest = rows.astype(np.float64)
    rest -= np.outer(rest @ mean, mean)
    users = rest @ asked
    lengths = np.linalg.norm(rest, axis=1), np.linalg.norm(users, axis=1)
    told = (lengths[0] ** 2 > LEAST_REST) & (lengths[1] > NOTHING)
    rest /= np.where(told, lengths[0], np.inf)[:, None]
    users /= np.where(told, lengths[1], np.inf)[:, None]
    return Factors(deltas=rest[:, None], inputs=users[:, None])


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """The items' Gram, as far as it is known.

    Attributes:
        block_weights: (n_blocks,) of the features' kernels.
        diagonal_weight: of the expected diagonal.
        rest: (M, M) what neither these nor an earlier run explain.
    """

    block_weights: Array
    diagonal_weight: float
    rest: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Learning:
    """What the server makes of releases: post-processing.

    Attributes:
        known: public facts of the head.
        customers: publicly declared number.
        sampling_rate: part of them in a release.
        before: the solution of an earlier run, of factors that are zero if there is none.
    """

    known: HeadFacts
    customers: float
    sampling_rate: float
    before: State

    @cached_property
    def mean(self) -> Array:
        """(M,) direction of popularity, of norm 1; no release says anything about it."""
        return mean_direction(self.known)

    @cached_property
    def expected_diagonal(self) -> Array:
        """(M,) of the Gram, whose trace is the number of customers."""
        return self.customers * self.known.share

    @cached_property
    def before_beside(self) -> Array:
        """(M, rank) factors of the earlier run without popularity."""
        return self._beside(self.before.factors.astype(np.float64))

    @cached_property
    def before_diagonal(self) -> Array:
        """(M,) that the earlier run found beside its factors."""
        return self.before.diagonal.astype(np.float64) * self.before.factors.any()

    def next_asked(self, asked: Array32, released: Sequence[Released]) -> Array32:
        """Return (M, width) leading directions of what is known after `released`.

        Args:
            asked: what the newest release was asked with.
            released: so far, oldest first.
        """
        estimate = self.estimate([*self._asked_before(asked, released), asked], released)
        guess = without(self.known.kernel(estimate.block_weights), self.mean)
        guess += estimate.rest + self.before_beside @ self.before_beside.T
        return directions(self.known, guess, asked.shape[1], len(released))

    def _asked_before(self, asked: Array32, released: Sequence[Released]) -> list[Array32]:
        """What the releases before the newest were asked with: found again, not kept."""
        if len(released) == 1:
            return []
        chain = [self.first_asked(asked.shape[1])]
        for n in range(1, len(released) - 1):
            chain.append(self.next_asked(chain[-1], released[:n]))
        return chain

    def first_asked(self, width: int) -> Array32:
        """Return the directions that this run began with."""
        if not self.before.factors.any():
            return initial(self.known, width).asked
        guess = self.before_beside @ self.before_beside.T
        return directions(self.known, guess, width, 0)

    def solved(self, asked: Array32, released: Sequence[Released]) -> State:
        """Return the solution, with which a later run may begin.

        Args:
            asked: what the newest release was asked with.
            released: all releases, oldest first.
        """
        estimate = self.estimate([*self._asked_before(asked, released), asked], released)
        gram = self._together(estimate)
        values, vectors = leading(gram, min(RANK, len(gram)))
        factors = vectors * np.sqrt(np.maximum(values, 0.0))
        total = np.diag(gram) + self.before_diagonal
        total += estimate.diagonal_weight * self.expected_diagonal
        precision = sum(one.noise_stddev**-2 for one in released)
        edge = math.sqrt(2.0 * len(gram) / precision)
        diagonal = np.maximum(total - np.sum(factors**2, axis=1), NOTHING) + RIDGE * edge
        weights = self.before.block_weights.copy()
        weights[: len(estimate.block_weights)] += estimate.block_weights
        state = State(
            asked=asked,
            factors=factors.astype(np.float32),
            diagonal=diagonal.astype(np.float32),
            block_weights=weights,
        )
        return replace(state, asked=replace(self, before=state).first_asked(asked.shape[1]))

    def _together(self, estimate: Estimate) -> Array:
        """Return the items' Gram (M, M), as strong along popularity as popularity itself is."""
        factors = self.before.factors.astype(np.float64)
        gram = self.known.kernel(estimate.block_weights) + factors @ factors.T
        popular = float(self.known.popularity @ self.known.popularity) / self.customers
        popular -= float(self.mean @ gram @ self.mean)
        return np.asarray(gram + popular * np.outer(self.mean, self.mean) + estimate.rest)

    def estimate(self, asked: Sequence[Array32], released: Sequence[Released]) -> Estimate:
        """Return the Gram that fits all releases.

        Args:
            asked: (M, width) Q of each release.
            released: as many.
        """
        questions, answers = self._whitened(asked, released)
        beside = self._beside(questions)
        answers -= self._beside(self.before_beside @ (self.before_beside.T @ beside))
        answers -= self._beside(self.before_diagonal[:, None] * beside)
        parts = [self.known.times_kernel(c, beside) for c in range(len(self.known.blocks))]
        parts.append(self.expected_diagonal[:, None] * beside)
        parts = [self._beside(part) for part in parts]
        normal = np.array([[np.vdot(x, y) for y in parts] for x in parts])
        target = np.array([np.vdot(x, answers) for x in parts])
        weights = nonnegative_fit(normal, target, np.diag(normal))
        for weight, part in zip(weights, parts, strict=True):
            answers -= weight * part
        return Estimate(
            block_weights=weights[:-1],
            diagonal_weight=float(weights[-1]),
            rest=symmetric_rest(questions, answers),
        )

    def _whitened(
        self, asked: Sequence[Array32], released: Sequence[Released]
    ) -> tuple[Array, Array]:
        """Return A and Y (M, all widths), where Y = G A plus noise of stddev 1.

        The trace of Q' B is sum_u |p_u| / |r_u|, which tells the scale that B lost.
        """
        questions, answers = [], []
        for directions_, one in zip(asked, released, strict=True):
            question = directions_.astype(np.float64)
            sums = one.total.reshape(question.shape)
            seen = max(float(np.vdot(question, sums)), 1.0)
            scale = seen / (self.customers * self.sampling_rate**2)
            stddev = one.noise_stddev * scale
            questions.append(question / stddev)
            answers.append(sums * scale / stddev)
        return np.hstack(questions), np.hstack(answers)

    def _beside(self, values: Array) -> Array:
        """Return (M, k) `values` without what lies along popularity."""
        return values - np.outer(self.mean, self.mean @ values)


def symmetric_rest(questions: Array, answers: Array) -> Array:
    """Return the symmetric (M, M) matrix that `answers` (M, k) show, without their unit noise."""
    values, vectors = np.linalg.eigh(questions.T @ questions)
    kept = values > values[-1] * SAME_QUESTION
    strength = np.sqrt(values[kept])
    basis = questions @ vectors[:, kept] / strength
    shown = shrunk_singular(answers @ vectors[:, kept]) / strength
    inside = basis.T @ shown
    rest = shown @ basis.T
    rest += rest.T - basis @ ((inside + inside.T) / 2.0) @ basis.T
    return np.asarray((rest + rest.T) / 2.0)


def shrunk_singular(noisy: Array) -> Array:
    """Return `noisy` (M, k) with the singular values of unit noise dropped, others shrunk.

    Source: Gavish & Donoho 2017, section IV-A (Frobenius loss).
    """
    rows, columns = noisy.shape
    left, values, right = np.linalg.svd(noisy, full_matrices=False)
    above = values > math.sqrt(rows) + math.sqrt(columns)
    inner = np.maximum((values**2 - rows - columns) ** 2 - 4.0 * rows * columns, 0.0)
    kept = np.where(above, np.sqrt(inner) / np.maximum(values, NOTHING), 0.0)
    return np.asarray((left * kept) @ right)


def directions(known: HeadFacts, matrix: Array, width: int, seed: int) -> Array32:
    """Return (M, width) orthonormal leading directions of `matrix`, beside popularity.

    Where the matrix tells fewer, random ones follow, in which popular items count for more.
    """
    mean = mean_direction(known)
    values, vectors = leading(matrix, width)
    told = vectors[:, values > max(NOTHING * values[0], NOTHING)]
    missing = width - told.shape[1]
    drawn = np.random.default_rng(seed).normal(size=(len(mean), missing))
    both = np.hstack([told, drawn * np.sqrt(known.share)[:, None]])
    both -= np.outer(mean, mean @ both)
    return np.linalg.qr(both)[0].astype(np.float32)


def mean_direction(known: HeadFacts) -> Array:
    """Return (M,) popularity at norm 1."""
    return known.popularity / float(np.linalg.norm(known.popularity))


def _trace_without(known: HeadFacts, number: int, direction: Array) -> float:
    """Trace of a block's kernel once `direction` is projected out."""
    mine = known.blocks[number][known.head]
    root = np.sqrt(known.popularity)
    squares = np.asarray(mine.multiply(mine).sum(axis=1)).ravel()
    along = mine.T @ (root * direction)
    return float(squares @ known.popularity - along @ along)


def scores(
    facts: PublicFacts, parameters: Array32, width: int, declared_users: int, rows: Array32
) -> Array32:
    """Return (n_users, n_items) scores; by popularity where a history says nothing.

    Args:
        facts: public facts.
        parameters: (n_parameters,) the solution.
        width: of what it asks with.
        declared_users: publicly declared number of customers.
        rows: (n_users, M) histories of norm 1 or empty.
    """
    solution = _solution(facts, width, declared_users, parameters.astype(np.float32).tobytes())
    users = rows @ solution.users
    scored = users @ solution.items.T
    scored[~users.any(axis=1)] = facts.model.popularity
    return np.asarray(scored, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Solution:
    """(M, rank) that turns a history into a customer's factor, (n_items, rank) that scores."""

    users: Array32
    items: Array32


@lru_cache(maxsize=4)
def _solution(facts: PublicFacts, width: int, declared_users: int, blob: bytes) -> _Solution:
    """The same for all batches of customers that are scored with equal parameters."""
    known = head_facts(facts, len(facts.model.head))
    vector = np.frombuffer(blob, dtype=np.float32)
    state = State.of_vector(vector, len(known.head), width)
    factors = state.factors.astype(np.float64)
    weighted = factors / state.diagonal.astype(np.float64)[:, None]
    inner = np.eye(factors.shape[1]) + weighted.T @ factors
    users = np.linalg.solve(inner, weighted.T).T
    own = np.einsum("ij,ij->i", factors, users)
    popularity = facts.model.popularity.astype(np.float64)
    shown = popularity[:, None] * (known.popularity @ weighted / max(declared_users, 1))
    blocks = state.block_weights[: len(known.blocks)].astype(np.float64)
    shown += known.catalogue_times_kernel(blocks, popularity, weighted)
    regular = weighted.T @ factors + TAIL_RIDGE * np.eye(len(inner))
    items = np.linalg.solve(regular, shown.T).T
    items[known.head] = factors / (1.0 - own)[:, None]
    return _Solution(users=users.astype(np.float32), items=items.astype(np.float32))
