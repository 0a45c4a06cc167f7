"""Server optimizers. Source: Reddi et al. 2021, with Adam's bias correction (Kingma & Ba 2015)."""

import numpy as np

from .base import Array

MOMENTUM = 0.9
DECAY = 0.99
TINY = 1e-12
"""Added to the root of the second moment, relative to nothing: directions have any scale."""


class FedAvg:
    """x + rate * direction."""

    def __init__(self, learning_rate: float) -> None:
        self._rate = learning_rate

    def step(self, parameters: Array, direction: Array) -> Array:
        """Return the next (n_parameters,)."""
        return parameters + self._rate * direction


class FedAvgM:
    """The same with momentum (Hsu et al. 2019)."""

    def __init__(self, learning_rate: float) -> None:
        self._rate = learning_rate
        self._velocity: Array | float = 0.0

    def step(self, parameters: Array, direction: Array) -> Array:
        """Return the next (n_parameters,)."""
        self._velocity = MOMENTUM * self._velocity + direction
        return parameters + self._rate * self._velocity


class FedAdam:
    """Each coordinate by its own scale."""

    def __init__(self, learning_rate: float) -> None:
        self._rate = learning_rate
        self._first: Array | float = 0.0
        self._second: Array | float = 0.0
        self._steps = 0

    def step(self, parameters: Array, direction: Array) -> Array:
        """Return the next (n_parameters,)."""
        self._steps += 1
        self._first = MOMENTUM * self._first + (1.0 - MOMENTUM) * direction
        self._second = self._next_second(self._second, direction**2)
        first = self._first / (1.0 - MOMENTUM**self._steps)
        second = self._second / (1.0 - DECAY**self._steps)
        return np.asarray(parameters + self._rate * first / (np.sqrt(second) + TINY))

    @staticmethod
    def _next_second(second: Array | float, square: Array) -> Array:
        return DECAY * second + (1.0 - DECAY) * square


class FedYogi(FedAdam):
    """Adam whose second moment moves by the sign of what is new (Zaheer et al. 2018)."""

    @staticmethod
    def _next_second(second: Array | float, square: Array) -> Array:
        return np.asarray(second - (1.0 - DECAY) * square * np.sign(second - square))
