"""The sum of all updates, in constant memory."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


class Total:
    """Adds updates up exactly; the only aggregate that secure aggregation can give."""

    needs_each_update: ClassVar[bool] = False

    def __init__(self, dim: int) -> None:
        self._total = np.zeros(dim, dtype=np.int64)

    def add(self, values: NDArray[np.int64], weight: float = 1.0) -> None:
        """Take in one silo's (dim,) update [grid units]; a sum knows no weights."""
        del weight
        self._total += values

    def result(self) -> NDArray[np.int64]:
        """Return the (dim,) sum [grid units]."""
        return self._total
