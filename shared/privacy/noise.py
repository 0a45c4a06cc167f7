"""The one place where noise is drawn: rounded Gaussians from a ChaCha20 stream.

Formal guarantee: `gaussian` returns rint(stddev * z) with z standard normal up to the
resolution of its uniforms (radius step 2^-65, so tails reach 9.5 stddev), independent of every
other call. Integers added to integers have a support that does not depend on the data, unlike
floats (Mironov 2012).
"""

import hashlib
import os
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

from ..errors import ConfigError
from .events import EVERYBODY
from .plan import MAX_STDDEV_GRID

_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Customers of one noisy sum. Made only in this module.

    Attributes:
        user_nums: (n_sampled,) ascending.
        sampling_ppm: probability with which each was drawn [parts per million].
        used: whether a release has been made of it; unless it is everybody, it serves once.
    """

    user_nums: NDArray[np.int64]
    sampling_ppm: int
    used: bool = field(default=False, init=False, compare=False)


class NoiseStream:
    """A ChaCha20 keystream read as Gaussian noise; each instance is used for one release."""

    def __init__(self, key: bytes, source: str) -> None:
        self._encryptor = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
        self.source = source

    @classmethod
    def from_system(cls) -> "NoiseStream":
        """Return a stream keyed by the operating system: the only one a deployment may use."""
        return cls(os.urandom(32), "getrandom chacha20")

    @classmethod
    def seeded(cls, seed: int, *labels: str) -> "NoiseStream":
        """Return a reproducible stream: simulations only, and it protects nobody.

        Different `labels` (silo, release) give independent streams; equal ones repeat.
        """
        text = "\x00".join([str(seed), *labels])
        return cls(hashlib.sha256(text.encode()).digest(), "seeded chacha20: no claim")

    def gaussian(self, dim: int, stddev_grid: int) -> NDArray[np.int64]:
        """Return (dim,) rounded Gaussians [grid units].

        Raises:
            ConfigError: `stddev_grid` is not positive, or so large that float64 no longer
                reaches every integer around it.

        Source: Box & Muller 1958; two keystream words make the radius' uniform.
        """
        if not 0 < stddev_grid <= MAX_STDDEV_GRID:
            raise ConfigError(f"{stddev_grid=} must lie between 1 and {MAX_STDDEV_GRID}")
        noise = np.empty(dim, dtype=np.int64)
        for start in range(0, dim, _CHUNK):
            size = min(_CHUNK, dim - start)
            normal = self._standard_normal(size)
            noise[start : start + size] = np.rint(normal * stddev_grid).astype(np.int64)
        return noise

    def sample(self, n_users: int, sampling_ppm: int) -> Sample:
        """Return a Poisson sample of `n_users` customers by secret coins; maybe nobody.

        Raises:
            ConfigError: `sampling_ppm` is no probability.
        """
        if not 0 < sampling_ppm <= EVERYBODY:
            raise ConfigError(f"{sampling_ppm=} must lie between 1 and {EVERYBODY}")
        if sampling_ppm == EVERYBODY:
            return Sample(user_nums=np.arange(n_users), sampling_ppm=sampling_ppm)
        drawn = self._words(n_users) < np.uint64(sampling_ppm * 2**64 // EVERYBODY)
        return Sample(user_nums=np.flatnonzero(drawn), sampling_ppm=sampling_ppm)

    def _words(self, n: int) -> NDArray[np.uint64]:
        return np.frombuffer(self._encryptor.update(bytes(8 * n)), dtype="<u8")

    def _standard_normal(self, size: int) -> NDArray[np.float64]:
        half = (size + 1) // 2
        first, second = self._words(half), self._words(half)
        coarse = (first >> np.uint64(11)).astype(np.float64)
        fine = (second & np.uint64(0x7FF)).astype(np.float64) * 2.0**-11 + 2.0**-12
        radius = np.sqrt(-2.0 * np.log((coarse + fine) * 2.0**-53))
        angle = (2.0 * np.pi * 2.0**-53) * (second >> np.uint64(11)).astype(np.float64)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
