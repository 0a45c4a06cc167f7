"""An autoencoder over head items: one hidden layer that starts from public item features.

Nothing but the two tables is learned; the output bias is DP popularity. Every customer's
gradient is clipped to one length, and the late rounds are averaged: at a handful of epsilon
noise is what limits the model, not its form.

Source: Liang et al. 2018 (Mult-DAE), at the width that noise allows.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .base import Array32, NetworkModel, PublicFacts, RoundTerms, Sizes, check_range
from .kernel_factors import head_facts, start_rows, user_moment

if TYPE_CHECKING:
    from .networks.base import Network


@dataclass(frozen=True, kw_only=True)
class AutoencoderTerms(RoundTerms):
    """Knobs of the autoencoder."""

    rounds: int = 100
    learning_rate: float = 0.015
    averaged: float = 0.25
    width: int = 32
    """Units of the hidden layer."""
    items: int = 5_000
    """Most popular head items that go in and out, at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, ("width",), least=1)
        check_range(self, ("items",), least=2)


class Autoencoder(NetworkModel[AutoencoderTerms]):
    """History over the head -> hidden layer -> scores over the head."""

    name = "autoencoder"
    terms = AutoencoderTerms

    def n_parameters(self, terms: AutoencoderTerms, sizes: Sizes) -> int:
        """Return the numbers of both tables."""
        n_items = min(terms.items, sizes.head)
        return 2 * n_items * min(terms.width, n_items)

    def initial(self, terms: AutoencoderTerms, facts: PublicFacts) -> Array32:
        """Return tables that already know which items are alike.

        The decoder holds an item's features, the encoder a customer's ridge solution on them.
        """
        known = head_facts(facts, terms.items)
        rows = start_rows(known, min(terms.width, len(known.head)))
        encoder = np.linalg.solve(user_moment(rows, known.share), rows.T)
        return np.concatenate([encoder.ravel(), rows.ravel()]).astype(np.float32)

    def network(self, terms: AutoencoderTerms, facts: PublicFacts) -> "Network":
        """Return the network over the first items of the head."""
        from .networks.autoencoder import AutoencoderNetwork  # noqa: PLC0415  (imports torch)

        return AutoencoderNetwork(facts, terms.width, terms.items)
