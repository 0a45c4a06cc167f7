"""Two towers whose parameters live in public content space: any catalogue, any item.

A customer is what the items in their history look like, and so is an item; what the towers
learn of one merchant's customers holds for a merchant that sells other items, and for items
that nobody has taken. Source: two-tower retrieval of Yi et al. 2019, with a linear user tower
and the identity as its beginning.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fondaco.shared.content_space import DIM

from .base import Array32, NetworkModel, PublicFacts, RoundTerms, Sizes, check_range

if TYPE_CHECKING:
    from .networks.base import Network


@dataclass(frozen=True, kw_only=True)
class ContentTowerTerms(RoundTerms):
    """Knobs of the content tower."""

    rounds: int = 40
    learning_rate: float = 0.05
    width: int = 16
    """Rank of what is learned between the content of a history and that of an item."""
    skip: float = 4.0
    """Frozen weight of plain likeness, which the towers start from."""
    first_scale: float = 4.0
    """Length of the user tower's first directions; larger ones make it learn faster."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, ("width",), least=1, most=DIM)
        check_range(self, ("skip",), least=0.0)
        check_range(self, ("first_scale",), least=1e-3)


class ContentTower(NetworkModel[ContentTowerTerms]):
    """Content of the history -> content of the next item."""

    name = "content_tower"
    terms = ContentTowerTerms

    def n_parameters(self, terms: ContentTowerTerms, sizes: Sizes) -> int:
        """Return the numbers of both towers; no size of any catalogue enters."""
        del sizes
        return DIM * (2 * terms.width + 1)

    def initial(self, terms: ContentTowerTerms, facts: PublicFacts) -> Array32:
        """Return towers that say what plain likeness says."""
        del facts
        first = terms.first_scale * np.eye(terms.width, DIM)
        rest = np.zeros(DIM * (terms.width + 1))
        return np.concatenate([first.ravel(), rest]).astype(np.float32)

    def network(self, terms: ContentTowerTerms, facts: PublicFacts) -> "Network":
        """Return the network over the catalogue's content space."""
        from .networks.content_tower import ContentTowerNetwork  # noqa: PLC0415  (imports torch)

        return ContentTowerNetwork(facts.catalogue, terms.width, terms.skip)
