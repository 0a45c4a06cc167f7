"""What every aggregator promises."""

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray


class Aggregator(Protocol):
    """Takes updates one by one, in any order, and keeps no more than it needs.

    Contract: the result does not depend on the order; one update in gives itself out.
    """

    needs_each_update: ClassVar[bool]
    """Whether it must see single updates, which secure aggregation forbids."""

    def __init__(self, dim: int) -> None:
        """Start with nothing added; `dim` is the length of every update."""

    def add(self, values: NDArray[np.int64]) -> None:
        """Take in one silo's (dim,) update [grid units]."""

    def result(self) -> NDArray[np.int64]:
        """Return the (dim,) aggregate of what was added [grid units]."""
