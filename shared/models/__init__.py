"""What silos can learn together: MODELS maps a name to the statistics it needs."""

from collections.abc import Mapping

from .base import Model
from .gram import GRAM

MODELS: Mapping[str, Model] = {"gram": GRAM}

__all__ = ["MODELS", "Model"]
