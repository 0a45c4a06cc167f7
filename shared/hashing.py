"""A fixed hash of numbers: the same on every machine, for choices that must be public."""

import numpy as np
from numpy.typing import NDArray


def mix64(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return `numbers` scrambled one by one.

    Source: the output function of SplitMix64 (Steele, Lea and Flood 2014).
    """
    with np.errstate(over="ignore"):
        x = numbers + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))
