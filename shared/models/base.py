"""What every federated model says about itself."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model learned from private sums.

    Attributes:
        name: its key in MODELS.
        statistics: sums it needs released, in order.
    """

    name: str
    statistics: tuple[str, ...]
