"""What is bought now: attention over a customer's recent items, and the catalogue's trend.

The Gram knows which items go together, but neither order nor time. Here a public window at the
end of training is predicted from everything before it: a query-free attention by recency weighs
the history's frozen item factors, and a trend per item moves towards what the window's
customers bought although the rest did not expect it.

The server moves by rules that know the noise. The trend is solved by regularised dual averaging
of all noisy sums so far, soft-thresholded at the noise they have added up, so that an item
moves only if its trend stands out. Everything else moves by momentum, each layer by steps of a
length that its gradient does not change: clipping makes lengths meaningless.

Source: Xiao 2010 (dual averaging); Kang & McAuley 2018 (attention over a history).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Array, Array32, NetworkModel, PublicFacts, Released, RoundTerms, Sizes
from .base import check_range as check
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
    """`dual-averaging` only: how far a whole customer moves an item's trend in all rounds; 0
    takes 1000 over the declared customers [logits]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, ("window_days", "half_life_days"), least=1e-3)
        check(self, ("length",), least=1)
        check(self, ("query_width", "trend_rate"), least=0)


class Sequence_(NetworkModel[SequenceTerms]):
    """Recent history -> scores of the whole catalogue."""
