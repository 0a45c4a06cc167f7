"""Pure arithmetic over updates: AGGREGATORS join silos, OPTIMIZERS move parameters."""

from collections.abc import Mapping

from .averages import Mean, Median, TrimmedMean
from .base import Aggregator, Optimizer
from .optimizers import FedAdam, FedAvg, FedAvgM, FedYogi
from .total import Total

AGGREGATORS: Mapping[str, type[Aggregator]] = {
    "sum": Total,
    "mean": Mean,
    "trimmed_mean": TrimmedMean,
    "median": Median,
}
OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
}

__all__ = ["AGGREGATORS", "OPTIMIZERS", "Aggregator", "Optimizer", "Total"]
