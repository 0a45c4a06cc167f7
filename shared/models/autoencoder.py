"""A denoising autoencoder over head items: one hidden layer, DP popularity as its output bias.

Source: Liang et al. 2018 (Mult-DAE), at the width that noise allows.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .base import Array32, NetworkModel, PublicFacts, RoundTerms, Sizes, check_range

if TYPE_CHECKING:
    from .networks.base import Network


@dataclass(frozen=True, kw_only=True)
class AutoencoderTerms(RoundTerms):
    """Knobs of the autoencoder."""

    rounds: int = 100
    width: int = 32
    """Units of the hidden layer."""
    items: int = 600
    """Most popular head items that go in and out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, ("width",), least=1)
        check_range(self, ("items",), least=2)


class Autoencoder(NetworkModel[AutoencoderTerms]):
    """History over the head -> hidden layer -> scores over the head."""

    name = "autoencoder"
    terms = AutoencoderTerms

    def n_parameters(self, terms: AutoencoderTerms, sizes: Sizes) -> int:
        """Return the numbers of both layers and of the hidden bias."""
        return (2 * min(terms.items, sizes.head) + 1) * terms.width

    def initial(self, terms: AutoencoderTerms, facts: PublicFacts) -> Array32:
        """Return small random weights, the same for everybody."""
        sizes = Sizes(n_items=len(facts.catalogue), head=len(facts.model.head))
        weights = np.random.default_rng(0).normal(size=self.n_parameters(terms, sizes))
        scaled = weights * 0.1 / np.sqrt(terms.width)
        return np.asarray(scaled, dtype=np.float32)

    def network(self, terms: AutoencoderTerms, facts: PublicFacts) -> "Network":
        """Return the network over the first items of the head."""
        from .networks.autoencoder import AutoencoderNetwork  # noqa: PLC0415  (imports torch)

        return AutoencoderNetwork(facts, terms.width, terms.items)
