"""Canaries in clipped gradients: crafted ones of a single coordinate, or random baskets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from fondaco.client.training import clipped_sum
from fondaco.server.checkpoint import RoundResult
from fondaco.server.learning import Learner
from fondaco.shared.models import MODELS, FactorModel, PublicFacts
from fondaco.shared.models.terms import PlannedModels
from fondaco.shared.privacy.clipping import ClippedSum
from fondaco.shared.privacy.events import EVERYBODY
from fondaco.shared.privacy.gradients import Factors, GradientSum
from fondaco.shared.privacy.noise import NoiseStream, Sample
from fondaco.shared.privacy.plan import RunPlan

from .mechanisms import Array, Claim
from .targets import random_baskets
from .world import Basket, Federation, World, task_of, timelines_of

LOUD = 1e7
"""Norm of a crafted canary before it is clipped [clip norms]."""
MF_WIDTH = 16
TINY = 1e-12


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradients:
    """Per-customer gradients of one iterative model, as the client computes them."""

    kind: str
    plan: RunPlan
    facts: PublicFacts

    @property
    def clip_norm(self) -> float:
        """C [model units]."""
        return float(self._model[1].clip_norm)

    @property
    def grid(self) -> int:
        """Grid units per clip norm, the plan's."""
        return self.plan.grid

    @property
    def dim(self) -> int:
        """Numbers released."""
        return next(event.dim for event in self.plan.releases if event.kind == self.kind)

    def of(self, baskets: Sequence[Basket], parameters: NDArray[np.float32]) -> list[Factors]:
        """Return every parameter's gradients of these customers."""
        model, terms = self._model
        timelines = timelines_of(baskets, self.plan.n_items)
        if isinstance(model, FactorModel):
            return list(model.factors(terms, self.facts, parameters, timelines))
        from fondaco.client.dpsgd import factors  # noqa: PLC0415  (torch takes two seconds)
        from fondaco.shared.models.networks.base import load_parameters  # noqa: PLC0415

        load_parameters(self._network, parameters)
        self._network.train()
        return factors(self._network, self._network.encode(timelines))

    @property
    def _model(self) -> tuple[Any, Any]:
        return PlannedModels.of_plan(self.plan).model(self.kind)

    @cached_property
    def _network(self) -> Any:  # noqa: ANN401  (torch type)
        from fondaco.client.dpsgd import check_network  # noqa: PLC0415

        network = MODELS[self.kind].network(self._model[1], self.facts)  # type: ignore[attr-defined]
        check_network(network)
        return network


class GradientTarget:
    """Clipped gradients of an iterative model.

    Args:
        world: customers.
        n_base: of them that are no canaries.
        n_canaries: canaries.
        gradients: the model.
        rng: draws both.
        crafted: canaries of one coordinate each, as loud as one likes; else random baskets.
    """

    shares: Mapping[str, float] = {"likelihood": 0.5, "sum": 0.4, "max": 0.05, "normalised": 0.05}

    def __init__(
        self,
        world: World,
        n_base: int,
        n_canaries: int,
        gradients: Gradients,
        rng: np.random.Generator,
        *,
        crafted: bool,
    ) -> None:
        self.n_canaries = n_canaries
        self.gradients = gradients
        self.crafted = crafted
        self.base = world.drawn(n_base, rng)
        self.coordinates = rng.permutation(gradients.dim)[:n_canaries]
        self.canaries = random_baskets(n_canaries, gradients.facts.model.head, rng)

    @property
    def grid(self) -> int:
        """Grid units per clip norm, the plan's."""
        return self.gradients.grid

    def start(self, included: NDArray[np.bool_]) -> "GradientRun":
        """Return a fresh run."""
        return GradientRun(self, included)

    def scores(self, evidence: Array, norms: Array, claim: Claim) -> dict[str, Array]:
        """Return sums and maxima over the rounds, and the likelihood ratio of the claim."""
        rate, variance = claim.sampling_rate, claim.noise_multiplier**2
        gain = (evidence - 0.5) / variance
        if rate < 1.0:
            parts = np.stack([np.full_like(gain, np.log1p(-rate)), gain + np.log(rate)])
            gain = logsumexp(parts, axis=0)
        return {
            "likelihood": gain.sum(axis=0),
            "sum": evidence.sum(axis=0),
            "max": evidence.max(axis=0),
            "normalised": (evidence / np.maximum(norms, TINY)[:, None]).sum(axis=0),
        }


class GradientRun:
    """One run on the gradients of a model that learns meanwhile."""

    def __init__(self, target: GradientTarget, included: NDArray[np.bool_]) -> None:
        self._target = target
        self._included = np.flatnonzero(included)
        self._of = of = target.gradients
        self._learner = Learner(of.kind, of.plan, of.facts)
        self._rounds = 0
        self._turn()

    def _turn(self) -> None:
        target, parameters = self._target, self._learner.parameters
        self._base = self._of.of(target.base, parameters)
        if target.crafted:
            return
        self._seen = self._of.of(target.canaries, parameters)

    @property
    def n_users(self) -> int:
        """Base customers and included canaries."""
        return len(self._target.base) + len(self._included)

    def clipped(self, sample: Sample) -> ClippedSum:
        """Return the core's clipped gradients of the sampled customers, added up."""
        if not self._target.crafted:
            chosen = [self._target.canaries[num] for num in self._included]
            baskets = [*self._target.base, *chosen]
            task = task_of(self._of.plan, baskets, self._of.facts, np.zeros(0, dtype=np.int64))
            return clipped_sum(task, self._of.kind, self._learner.parameters, sample)
        total = GradientSum(self._of.dim, self._of.clip_norm, self._of.grid, sample)
        for users, layers in self._sampled(sample):
            total.add(users, layers)
        return total.total()

    def raw(self, sample: Sample) -> Array:
        """Return (dim,) the gradients as they are, added up."""
        total = np.zeros(self._of.dim)
        for users, layers in self._sampled(sample):
            total += self._added_up(layers, np.ones(len(users)))
        return total / self._of.clip_norm

    def evidence(self, noisy: Array) -> Array:
        """Return (n_canaries,) what is left of the release along each canary.

        Which share of the base customers was sampled is fitted: a broken sampler must not hide
        behind a wrong expectation.
        """
        directions = [self._base_sum()]
        if not self._target.crafted:
            directions.append(self._added_up(self._seen, 1.0 / self._lengths()))
        known = np.linalg.qr(np.stack(directions).T)[0]
        rest = noisy - known @ (known.T @ noisy)
        if self._target.crafted:
            return np.asarray(rest[self._target.coordinates])
        total, start = np.zeros(self._target.n_canaries), 0
        for layer in self._seen:
            part = rest[start : start + layer.dim].reshape(layer.deltas.shape[2], -1)
            total += np.einsum("uti,uti->u", layer.deltas @ part.astype(np.float32), layer.inputs)
            start += layer.dim
        return np.asarray(total / self._lengths())

    def _lengths(self) -> Array:
        """(n_canaries,) norms of the data canaries' gradients, the clip at least."""
        squares = np.sum([layer.in_float64().squared_norms() for layer in self._seen], axis=0)
        return np.asarray(np.maximum(np.sqrt(squares), self._of.clip_norm))

    def _added_up(self, layers: Sequence[Factors], weights: Array) -> Array:
        total, start = np.zeros(self._of.dim), 0
        for layer in layers:
            layer.in_float64().add_to(total[start : start + layer.dim], weights)
            start += layer.dim
        return total

    def move(self, noisy: Array) -> None:
        """Let the server learn from the release."""
        self._rounds += 1
        result = RoundResult(
            kind=self._of.kind,
            round_num=1 + self._rounds,
            total=np.rint(noisy * self._of.grid).astype(np.int64),
            present=("everybody",),
            dropped=(),
        )
        self._learner.absorb(result)
        self._turn()

    def _base_sum(self) -> Array:
        everybody = NoiseStream.seeded(0).sample(len(self._target.base), EVERYBODY)
        total = GradientSum(self._of.dim, self._of.clip_norm, self._of.grid, everybody)
        total.add(everybody.user_nums, self._base)
        return np.asarray(total.total().values / self._of.grid)

    def _sampled(self, sample: Sample) -> list[tuple[NDArray[np.int64], list[Factors]]]:
        """Sampled base customers and sampled canaries, each with their gradients."""
        n_base = len(self._target.base)
        base = sample.user_nums[sample.user_nums < n_base]
        places = sample.user_nums[sample.user_nums >= n_base]
        canaries = self._included[places - n_base]
        if self._target.crafted:
            loud = self._loud(canaries)
        else:
            loud = [_rows(layer, canaries) for layer in self._seen]
        return [(base, [_rows(layer, base) for layer in self._base]), (places, loud)]

    def _loud(self, canaries: NDArray[np.int64]) -> list[Factors]:
        """Gradients of one coordinate each, far longer than the clip."""
        coordinates, start, layers = self._target.coordinates[canaries], 0, []
        for layer in self._base:
            n_out, n_in = layer.deltas.shape[2], layer.inputs.shape[2]
            mine = (coordinates >= start) & (coordinates < start + layer.dim)
            place = np.where(mine, coordinates - start, 0)
            rows = np.arange(len(canaries))
            deltas = np.zeros((len(canaries), 1, n_out), dtype=np.float32)
            inputs = np.zeros((len(canaries), 1, n_in), dtype=np.float32)
            deltas[rows, 0, place // n_in] = np.where(mine, LOUD * self._of.clip_norm, 0.0)
            inputs[rows, 0, place % n_in] = 1.0
            layers.append(Factors(deltas=deltas, inputs=inputs))
            start += layer.dim
        return layers


def _rows(layer: Factors, users: NDArray[np.int64]) -> Factors:
    return Factors(deltas=layer.deltas[users], inputs=layer.inputs[users])


def gradients_of(
    world: World, kind: str, seed: int, *, epsilon: float, rounds: int = 30
) -> Gradients:
    """Return an iterative model at its beginning, on a base model of the world's customers.

    Args:
        world: customers.
        kind: mf, which descends here, or a network.
        seed: of the base model's noise.
        epsilon: of its plan [1].
        rounds: of the model.
    """
    terms: dict[str, object] = {"rounds": rounds}
    if kind == "mf":
        terms |= {"solver": "sgd", "width": MF_WIDTH}
    plan = world.at(epsilon).plan(kind, **terms)
    facts = Federation(world=world, plan=plan, seed=seed).base(world.baskets)
    return Gradients(kind=kind, plan=plan, facts=facts)
