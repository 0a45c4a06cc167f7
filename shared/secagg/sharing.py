"""Shamir's secret sharing of 16-byte seeds, by pycryptodome, over GF(2^128)."""

from collections.abc import Callable, Mapping
from itertools import islice

from Crypto.Protocol.SecretSharing import Shamir

from ..errors import RoundError


class LostSeedError(RoundError):
    """A seed, or a secret that follows from it, that nobody can give back.

    Attributes:
        silo_id: whose it is: who had to share it out.
    """

    def __init__(self, text: str, silo_id: str) -> None:
        super().__init__(text)
        self.silo_id = silo_id


def split(secret: bytes, threshold: int, n_holders: int) -> list[bytes]:
    """Return a share for each of `n_holders`; any `threshold` of them give the secret back.

    The holder in place i, from 0, holds the value at i + 1.
    """
    return [share for _, share in Shamir.split(threshold, n_holders, secret, ssss=False)]


def combine(
    shares: Mapping[int, bytes], threshold: int, fits: Callable[[bytes], bool], whose: str
) -> bytes:
    """Return the secret that fits what its owner published of it.

    Args:
        shares: holder's place, from 0 -> its share; wrong ones are left out already.
        threshold: shares needed.
        fits: whether a secret is the right one.
        whose: silo id.

    Raises:
        LostSeedError: there are too few shares, or their owner shared out something else.
    """
    if len(shares) < threshold:
        text = f"{len(shares)} sound shares of {whose} came, {threshold} are needed"
        raise LostSeedError(text, whose)
    group = [(place + 1, share) for place, share in islice(sorted(shares.items()), threshold)]
    secret = Shamir.combine(group, ssss=False)
    if not fits(secret):
        raise LostSeedError(f"the shares of {whose} do not fit what it published", whose)
    return secret
