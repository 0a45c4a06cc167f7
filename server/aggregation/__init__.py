"""Pure arithmetic over updates: AGGREGATORS maps a name to it."""

from collections.abc import Mapping

from .base import Aggregator
from .total import Total

AGGREGATORS: Mapping[str, type[Aggregator]] = {"sum": Total}

__all__ = ["AGGREGATORS", "Aggregator", "Total"]
