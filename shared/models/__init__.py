"""What silos can learn together: MODELS maps a name to it."""

from collections.abc import Mapping
from typing import Any

from .autoencoder import Autoencoder
from .base import FactorModel, IterativeModel, Model, NetworkModel, PublicFacts, Sizes, Timelines
from .content_tower import ContentTower
from .gram import Gram
from .mf import Mf
from .sequence import SequenceModel

MODELS: Mapping[str, Model[Any]] = {
    "gram": Gram(),
    "mf": Mf(),
    "autoencoder": Autoencoder(),
    "sequence": SequenceModel(),
    "content_tower": ContentTower(),
}

__all__ = [
    "MODELS",
    "FactorModel",
    "IterativeModel",
    "Model",
    "NetworkModel",
    "PublicFacts",
    "Sizes",
    "Timelines",
]
