"""What every aggregator and every server optimizer promises."""

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Aggregator(Protocol):
    """Takes updates one by one, in any order, and keeps no more than it needs.

    Contract: the result does not depend on the order; one update in gives itself out.
    """

    needs_each_update: ClassVar[bool]
    """Whether it must see single updates, which secure aggregation forbids."""

    def __init__(self, dim: int) -> None:
        """Start with nothing added; `dim` is the length of every update."""

    def add(self, values: NDArray[np.int64], weight: float = 1.0) -> None:
        """Take in one silo's (dim,) update [grid units] and its public weight."""

    def result(self) -> NDArray[Any]:
        """Return the (dim,) aggregate of what was added [grid units]."""


class Optimizer(Protocol):
    """Moves parameters along noisy directions; its state is post-processing of releases.

    Contract: a direction of zeros into a fresh optimizer moves nothing; equal calls give equal
    parameters.
    """

    def __init__(self, learning_rate: float) -> None:
        """Start with no memory."""

    def step(self, parameters: Array, direction: Array) -> Array:
        """Return the next (n_parameters,); `direction` is what to move along, not against."""
