"""What is bought now: attention over a customer's recent items, and the catalogue's trend.

The Gram knows which items go together, but neither order nor time. Here a public window at the
end of training is predicted from everything before it: attention by recency weighs the
history's frozen item factors, and a trend per item moves towards what the window's
customers bought although the rest did not expect it.

The server moves by rules that know the noise. The trend is solved by regularised dual averaging
of all noisy sums so far, soft-thresholded at the noise they have added up, so that an item
moves only if its trend stands out. Everything else moves by momentum, each layer by steps of a
length that its gradient does not change: clipping makes lengths meaningless.

Source: Xiao 2010 (dual averaging); Kang & McAuley 2018 (attention over a history).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import (
    Array,
    Array32,
    NetworkModel,
    PublicFacts,
    Released,
    RoundTerms,
    Sizes,
    check_range,
)
from .gram import RANK

if TYPE_CHECKING:
    from .networks.base import Network

N_FEATURES = 8
"""What is known of a position: ages, order and count."""
N_CONTEXT = 4
"""What is known of a whole history."""
DUAL_AVERAGING = "dual-averaging"
TREND_REACH = 1000.0
"""How far a trend moves in all rounds if every declared customer pulls at it alone [logits]."""
STEPS = {"recency": 1.5, "gate": 5.0, "key": 0.02, "query": 0.02}
"""First step of each layer's parameters, root mean square."""
MOMENTUM = 0.5
MEMORY = 0.9
"""Of the mean squared gradient by which steps are scaled."""


@dataclass(frozen=True, kw_only=True)
class SequenceTerms(RoundTerms):
    """Knobs of the sequence model."""

    rule: ClassVar[str] = DUAL_AVERAGING

    share: float = 0.3
    rounds: int = 6
    window_days: float = 60.0
    """End of training that is predicted from what came before; without a clock, the last fifth
    of each customer's rows [days]."""
    half_life_days: float = 60.0
    """Age at which the untrained attention has halved [days]."""
    length: int = 128
    """Latest distinct items of a customer that are attended to."""
    query_width: int = 0
    """Units by which items are also matched with the latest ones; 0 attends by recency alone."""
    trend_rate: float = 0.0
    """`dual-averaging` only: how far a customer who pulls at one item alone moves its trend in
    all rounds; 0 takes 1000 over the declared customers [logits]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, ("window_days", "half_life_days"), least=1e-3)
        check_range(self, ("length",), least=1)
        check_range(self, ("query_width", "trend_rate"), least=0)


class SequenceModel(NetworkModel[SequenceTerms]):
    """Recent history -> scores of the whole catalogue."""

    name = "sequence"
    terms = SequenceTerms

    def resolve(self, terms: SequenceTerms, mu: float, declared_users: int) -> SequenceTerms:
        """Return the terms with a trend rate by the declared number of customers."""
        del mu
        return replace(terms, trend_rate=terms.trend_rate or TREND_REACH / declared_users)

    def n_parameters(self, terms: SequenceTerms, sizes: Sizes) -> int:
        """Return the numbers of all layers."""
        return sum(_layers(terms, sizes).values())

    def initial(self, terms: SequenceTerms, facts: PublicFacts) -> Array32:
        """Return zeros: the Gram with a half-life; of a query's layers, one is random."""
        sizes = _sizes(facts)
        parts = {name: np.zeros(size) for name, size in _layers(terms, sizes).items()}
        if terms.query_width:
            random = np.random.default_rng(0).normal(size=len(parts["key"]))
            parts["key"] = random / math.sqrt(min(RANK, sizes.head))
        return np.concatenate(list(parts.values())).astype(np.float32)

    def network(self, terms: SequenceTerms, facts: PublicFacts) -> "Network":
        """Return the network on the facts' frozen item factors."""
        from .networks.sequence import SequenceNetwork  # noqa: PLC0415  (imports torch)

        return SequenceNetwork(facts, terms)

    def advance(
        self,
        terms: SequenceTerms,
        facts: PublicFacts,
        parameters: Array32,
        released: Sequence[Released],
    ) -> Array32 | None:
        """Return the parameters after one step of the rules above; None for other optimizers."""
        if terms.optimizer != DUAL_AVERAGING:
            return None
        moved = parameters.astype(np.float64)
        start = 0
        for name, size in _layers(terms, _sizes(facts)).items():
            layer = slice(start, start + size)
            start += size
            if name != "trend":
                moved[layer] += _momentum_step(released, layer, STEPS[name], terms.rounds)
            elif terms.trend_rate:
                rate = terms.trend_rate / terms.rounds
                moved[layer] -= rate * _beyond_noise(released, layer)
                moved[layer] += rate * _beyond_noise(released[:-1], layer)
        return moved.astype(np.float32)


def _layers(terms: SequenceTerms, sizes: Sizes) -> dict[str, int]:
    """Numbers of each layer, in the network's order."""
    query = terms.query_width * min(RANK, sizes.head)
    matched = {"key": query, "query": query} if query else {}
    return {"recency": N_FEATURES, "gate": N_CONTEXT, **matched, "trend": sizes.n_items}


def _sizes(facts: PublicFacts) -> Sizes:
    return Sizes(n_items=len(facts.catalogue), head=len(facts.model.head))


def _beyond_noise(released: Sequence[Released], layer: slice) -> Array | float:
    """The summed gradients (size,), each moved towards 0 by the sum's noise stddev."""
    if not released:
        return 0.0
    total = np.sum([one.total[layer] for one in released], axis=0)
    noise = math.sqrt(sum(one.noise_stddev**2 for one in released))
    return np.asarray(np.sign(total) * np.maximum(np.abs(total) - noise, 0.0))


def _momentum_step(released: Sequence[Released], layer: slice, length: float, rounds: int) -> Array:
    """(size,) the newest step: full-length in the first half of the rounds, then fading out."""
    direction, square = np.zeros(layer.stop - layer.start), 0.0
    for one in released:
        gradient = one.total[layer]
        direction = MOMENTUM * direction + (1.0 - MOMENTUM) * gradient
        square = MEMORY * square + (1.0 - MEMORY) * float(np.mean(gradient**2))
    n = len(released)
    scale = math.sqrt(square / (1.0 - MEMORY**n)) + 1e-12
    fade = min(1.0, 2.0 * (1.0 - (n - 1) / rounds))
    return np.asarray(-length * max(fade, 0.0) * direction / (1.0 - MOMENTUM**n) / scale)
