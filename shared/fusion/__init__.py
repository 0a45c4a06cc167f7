"""How score planes of different kinds become one: FUSERS maps a name to it."""

from collections.abc import Mapping

from .base import Fuser, standardise
from .rank import ReciprocalRank
from .stacked import Stacked
from .weighted import Weighted

FUSERS: Mapping[str, Fuser] = {
    "weighted": Weighted(),
    "rank": ReciprocalRank(),
    "stacked": Stacked(),
}

__all__ = ["FUSERS", "Fuser", "standardise"]
