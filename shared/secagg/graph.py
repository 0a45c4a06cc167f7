"""Who shares masks and seeds with whom.

Masks: everybody with everybody up to 100 silos, with the k nearest on a circle above. Seeds: among
everybody up to 30 silos, among the k nearest above.

Formal guarantee: whoever falls silent and whoever colludes, as long as `n_min` silos survive and
at most `t_collude` collude, the honest survivors hang together by masks that nobody else knows,
fewer colluders hold shares of a seed than can give it back, and enough others do. Hence only the
sum over all honest survivors can be read, and it can be.

To part a circle on which everybody is joined to the k/2 nearest on either side, two runs of k/2
side by side must be gone, and k is more than all that may be gone together. Chance plays no part:
the silos' order is drawn from the roster's digest only to spread colluders who know each other.

Source: Bell, Bonawitz, Gascon, Lepoint & Raykova 2020, section 3, who draw the order at random and
choose k so that bad luck is rare (their drop-outs do not choose); Harary 1962 for the connectivity.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from ..privacy.plan import Cohort

ALL_MASK, ALL_HOLD = 100, 30
"""Up to so many silos, all are neighbours, and all hold shares."""

Graph = Mapping[str, frozenset[str]]


def neighbours(silo_ids: tuple[str, ...], cohort: Cohort, coin: str) -> Graph:
    """Return with whom every silo shares masks.

    Args:
        silo_ids: who is there, each once; at least n_min.
        cohort: the plan's.
        coin: public, and fixed by everybody's keys: the roster's digest.
    """
    return _circle(silo_ids, degree(cohort, ALL_MASK), coin)


def holders(silo_ids: tuple[str, ...], cohort: Cohort, coin: str) -> Graph:
    """Return who holds shares of every silo's seeds, beside itself."""
    return _circle(silo_ids, degree(cohort, ALL_HOLD), coin)


def share_threshold(cohort: Cohort) -> int:
    """Return how many holders, the silo itself counted, can give its seeds back.

    More than may collude, and as many, in proportion, as would have to sign twice for two
    certificates of one round; but one less than stay whoever falls silent.
    """
    n, n_holders = cohort.n_silos, degree(cohort, ALL_HOLD) + 1
    twice = 2 * cohort.threshold - n
    staying = n_holders - (n - cohort.n_min)
    return max(_colluders(cohort) + 1, min(twice * n_holders // n, staying - 1))


def degree(cohort: Cohort, all_of: int) -> int:
    """Return the number of neighbours k: all others up to `all_of` silos, else enough."""
    n = cohort.n_silos
    gone = n - cohort.n_min + _colluders(cohort)
    k = max(ALL_HOLD, 2 * (gone // 2 + 1))
    return n - 1 if n <= max(all_of, k + 1) else k


def _colluders(cohort: Cohort) -> int:
    """Return how many the graph withstands: a tenth even where the plan expects fewer."""
    return max(cohort.t_collude, cohort.n_silos // 10)


@lru_cache(maxsize=16)
def _circle(silo_ids: tuple[str, ...], k: int, coin: str) -> Graph:
    """Join everybody to the k/2 nearest on either side; to all if k are no more than there are."""
    n = len(silo_ids)
    if n <= k + 1:
        return {silo: frozenset(silo_ids) - {silo} for silo in silo_ids}
    circle = sorted(
        silo_ids, key=lambda silo: hashlib.sha256(f"{coin}\x00{silo}".encode()).digest()
    )
    near = [*range(-(k // 2), 0), *range(1, k // 2 + 1)]
    return {
        silo: frozenset(circle[(place + step) % n] for step in near)
        for place, silo in enumerate(circle)
    }
