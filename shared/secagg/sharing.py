"""Shamir's secret sharing of 16-byte seeds, by pycryptodome, over GF(2^128)."""

from collections.abc import Callable, Mapping
from itertools import islice

from Crypto.Protocol.SecretSharing import Shamir

from ..errors import RoundError
from .keys import SEED

MOST_TRIES = 20


def split(secret: bytes, threshold: int, n_holders: int) -> list[bytes]:
    """Return a share for each of `n_holders`; any `threshold` of them give the secret back.

    The holder in place i, from 0, holds the value at i + 1.
    """
    return [share for _, share in Shamir.split(threshold, n_holders, secret, ssss=False)]


def combine(
    shares: Mapping[int, bytes], threshold: int, fits: Callable[[bytes], bool], whose: str
) -> bytes:
    """Return the secret that fits what its owner published of it.

    Some shares may be wrong: as many groups of holders are tried as there are places to begin.

    Args:
        shares: holder's place, from 0 -> its share.
        threshold: shares needed.
        fits: whether a secret is the right one.
        whose: for the error.

    Raises:
        RoundError: there are too few shares, or no group of them fits.
    """
    sound = sorted((place, share) for place, share in shares.items() if len(share) == SEED)
    if len(sound) < threshold:
        raise RoundError(f"{len(sound)} shares of {whose} came, {threshold} are needed")
    for start in islice(range(len(sound)), MOST_TRIES):
        group = (sound[start:] + sound[:start])[:threshold]
        secret = Shamir.combine([(place + 1, share) for place, share in group], ssss=False)
        if fits(secret):
            return secret
    raise RoundError(f"the shares of {whose} do not fit what it published")
