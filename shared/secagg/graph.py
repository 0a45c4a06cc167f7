"""Who shares masks with whom: everybody up to 100 silos, k neighbours on a circle above.

Formal guarantee: whoever falls silent and whoever colludes, as long as `n_min` silos survive and
at most `t_collude` collude, the honest survivors hang together by masks that nobody else knows,
and fewer colluders hold shares of a seed than can give it back. Hence only the sum over all
honest survivors can be read.

Everybody is joined to the k/2 nearest on either side. To part such a circle, two runs of k/2 side
by side must be gone, and k is more than all that may be gone together. Chance plays no part: the
silos' order is drawn from the roster's digest only to spread colluders who know each other.

Source: Bell, Bonawitz, Gascon, Lepoint & Raykova 2020, section 3, who draw the order at random and
choose k so that bad luck is rare (their drop-outs do not choose); Harary 1962 for the connectivity.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from ..privacy.plan import Cohort

COMPLETE = 100


@lru_cache(maxsize=8)
def neighbours(
    silo_ids: tuple[str, ...], cohort: Cohort, coin: str
) -> Mapping[str, frozenset[str]]:
    """Return every silo's neighbours.

    Args:
        silo_ids: who is there, each once; at least n_min.
        cohort: the plan's.
        coin: public, and fixed by everybody's keys: the roster's digest.
    """
    k, n = degree(cohort), len(silo_ids)
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


def share_threshold(cohort: Cohort) -> int:
    """Return how many of a silo's neighbours and itself can give its seeds back."""
    return cohort.threshold if _is_complete(cohort) else _colluders(cohort) + 1


def degree(cohort: Cohort) -> int:
    """Return the number of neighbours k: all others up to 100 silos, and if no fewer would do."""
    if _is_complete(cohort):
        return cohort.n_silos - 1
    return 2 * (_gone(cohort) // 2 + 1)


def _is_complete(cohort: Cohort) -> bool:
    return cohort.n_silos <= max(COMPLETE, _gone(cohort) + 3)


def _gone(cohort: Cohort) -> int:
    """Return how many may be gone for the honest: silent or colluding."""
    return cohort.n_silos - cohort.n_min + _colluders(cohort)


def _colluders(cohort: Cohort) -> int:
    """Return how many the graph withstands: a tenth even where the plan expects fewer."""
    return max(cohort.t_collude, cohort.n_silos // 10)
