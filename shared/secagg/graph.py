"""Who shares masks with whom: everybody up to 100 silos, a random k-regular graph above.

The graph is circulant: silos in random order on a circle, everybody joined to those at k/2 random
distances on either side. A silo's neighbours are then a random set of k others, drawn after the
colluders are known, and a few silos together have far more neighbours than may fall silent.

A silo goes on only while more than half of its neighbours and itself are there, so it stands bare
only if that many of its neighbours collude; `degree` makes that less likely than 2^-60 over all
silos, so a coordinator who tries 2^20 rosters still fails but with 2^-40. Honest neighbours that
fall silent may stop the sum; that is made less likely than 2^-20.

Source: Bell, Bonawitz, Gascon, Lepoint & Raykova 2020, section 3; there, neighbours on a circle
stand side by side, and whoever picks the drop-outs could cut it in two.
"""

import hashlib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from math import comb

from ..privacy.plan import Cohort

COMPLETE = 100
READ_BY_FEW = Fraction(1, 2**60)
STUCK = Fraction(1, 2**20)


@lru_cache(maxsize=8)
def neighbours(
    silo_ids: tuple[str, ...], cohort: Cohort, coin: str
) -> Mapping[str, frozenset[str]]:
    """Return every silo's neighbours.

    Args:
        silo_ids: who is there, each once.
        cohort: the plan's.
        coin: public, and fixed by everybody's keys: the roster's digest.
    """
    k, n = degree(cohort), len(silo_ids)
    if n <= k + 1:
        return {silo: frozenset(silo_ids) - {silo} for silo in silo_ids}
    circle = _shuffled(silo_ids, coin)
    steps = [int(step) for step in _shuffled(map(str, range(1, (n + 1) // 2)), coin)[: k // 2]]
    return {
        silo: frozenset(circle[(place + way * step) % n] for step in steps for way in (-1, 1))
        for place, silo in enumerate(circle)
    }


def share_threshold(cohort: Cohort) -> int:
    """Return how many of a silo's neighbours and itself can give its seeds back."""
    k = degree(cohort)
    return cohort.threshold if k == cohort.n_silos - 1 else _majority(k)


@lru_cache(maxsize=64)
def degree(cohort: Cohort) -> int:
    """Return the number of neighbours k: all others up to 100 silos, and if no fewer would do."""
    n = cohort.n_silos
    if n <= COMPLETE:
        return n - 1
    for k in range(2, n - 1, 2):
        bare = n * at_least(_majority(k) - 1, k, cohort.t_collude, n - 1)
        stuck = n * at_least(k + 2 - _majority(k), k, n - cohort.n_min, n - 1)
        if bare <= READ_BY_FEW and stuck <= STUCK:
            return k
    return n - 1


def at_least(least: int, drawn: int, marked: int, n: int) -> Fraction:
    """Return the chance of `least` or more marked among `drawn` of `n` without replacement."""
    ways = sum(
        comb(marked, hits) * comb(n - marked, drawn - hits)
        for hits in range(least, min(drawn, marked) + 1)
    )
    return Fraction(ways, comb(n, drawn))


def _majority(k: int) -> int:
    return (k + 1) // 2 + 1


def _shuffled(names: Iterable[str], coin: str) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{coin}\x00{name}".encode()).digest())
