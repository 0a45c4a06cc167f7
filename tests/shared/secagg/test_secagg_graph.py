"""Who shares masks with whom: the same for all, regular, and connected whoever falls silent."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from curious_coordinator import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_federation import Federation
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import hypergeom

from fondaco.shared.privacy.plan import Cohort
from fondaco.shared.secagg.checks import require_neighbours
from fondaco.shared.secagg.graph import (
    COMPLETE,
    READ_BY_FEW,
    STUCK,
    at_least,
    degree,
    neighbours,
    share_threshold,
)

SPARSE = [101, 102, 150, 301, 500, 1000]
FIRST_NEIGHBOURS = ["silo-0001", "silo-0003", "silo-0010", "silo-0011"]


def _names(n):
    return tuple(f"silo-{num:04d}" for num in range(n))


def _connected(graph, present):
    """Return whether the silos that are present can all reach each other."""
    place = {name: num for num, name in enumerate(sorted(present))}
    edges = [(place[a], place[b]) for a in present for b in graph[a] if b in place]
    rows, columns = np.array(edges).reshape(-1, 2).T
    table = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(place), len(place)))
    return connected_components(table, directed=False)[0] == 1


@pytest.mark.parametrize("n", [3, 4, 10, COMPLETE])
def test_few_silos_are_all_joined(n):
    graph = neighbours(_names(n), Cohort.default(n), "coin")
    assert all(graph[name] == set(_names(n)) - {name} for name in _names(n))


@pytest.mark.parametrize("n", SPARSE)
@pytest.mark.parametrize("missing", [0, 1, 7])
def test_many_silos_have_equally_many_neighbours_each(n, missing):
    """Also if some did not say hello."""
    cohort = Cohort.default(n)
    names = _names(n)[missing:]
    graph = neighbours(names, cohort, "coin")
    assert {len(graph[name]) for name in names} == {degree(cohort)}
    assert set(graph) == set(names)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(101, 260), gone=st.integers(0, 20), coin=st.text(max_size=8), t=st.integers(0, 20)
)
def test_graph_is_symmetric_and_without_loops(n, gone, coin, t):
    cohort = Cohort(n_silos=n, n_min=n - n // 10, t_collude=t)
    graph = neighbours(_names(n)[gone:], cohort, coin)
    for name, others in graph.items():
        assert name not in others
        assert all(name in graph[other] for other in others)
        assert len(others) == min(degree(cohort), len(graph) - 1)


def test_graph_depends_on_the_coin_and_on_nothing_else():
    names, cohort = _names(150), Cohort.default(150)
    graph = neighbours(names, cohort, "coin")
    neighbours.cache_clear()
    assert neighbours(names, cohort, "coin") == graph
    assert neighbours(names[::-1], cohort, "coin") == graph
    assert neighbours(names, cohort, "another coin") != graph


def test_graph_of_a_fixed_coin_never_changes():
    graph = neighbours(_names(101), Cohort.default(101), "coin")
    assert sorted(graph["silo-0000"])[:4] == FIRST_NEIGHBOURS


def test_neighbours_are_drawn_evenly():
    """Over 400 coins, the same ones each time."""
    n, cohort = 101, Cohort.default(101)
    seen = Counter()
    for coin in range(400):
        seen.update(neighbours(_names(n), cohort, str(coin))["silo-0000"])
    counts = np.array([seen[name] for name in _names(n)[1:]])
    share = degree(cohort) / (n - 1)
    spread = ((counts - 400 * share) ** 2 / (400 * share * (1 - share))).sum()
    # Neighbours come in pairs of one distance: no chi-square, but far from it either.
    assert spread < 300


@pytest.mark.parametrize("n", SPARSE)
def test_degree_is_the_least_that_keeps_both_promises(n):
    cohort = Cohort.default(n)

    def holds(k):
        majority = (k + 1) // 2 + 1
        bare = n * hypergeom.sf(majority - 2, n - 1, cohort.t_collude, k)
        stuck = n * hypergeom.sf(k + 1 - majority, n - 1, n - cohort.n_min, k)
        return bare <= float(READ_BY_FEW) and stuck <= float(STUCK)

    k = degree(cohort)
    assert k % 2 == 0
    assert holds(k)
    assert not any(holds(fewer) for fewer in range(2, k, 2))


@settings(deadline=None)
@given(
    n=st.integers(1, 200),
    marked=st.integers(0, 200),
    drawn=st.integers(0, 200),
    at=st.integers(0, 9),
)
def test_chances_are_hypergeometric(n, marked, drawn, at):
    marked, drawn = min(marked, n), min(drawn, n)
    exact = at_least(at, drawn, marked, n)
    assert isinstance(exact, Fraction)
    expected = hypergeom.sf(at - 1, n, marked, drawn)
    assert float(exact) == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("n", [3, 10, 100, *SPARSE])
def test_no_coalition_that_the_plan_expects_holds_enough_shares(n):
    cohort = Cohort.default(n)
    threshold = share_threshold(cohort)
    if n <= COMPLETE:
        assert threshold == cohort.threshold > cohort.t_collude
        return
    holders = degree(cohort) + 1
    assert 2 * threshold > holders
    chance = n * hypergeom.sf(threshold - 1, n - 1, cohort.t_collude, degree(cohort))
    assert chance < 2**-60


@pytest.mark.xfail(strict=True, reason="all distances on the circle may be even")
@pytest.mark.parametrize(("n", "coin"), [(102, "25466")])
def test_graph_never_falls_apart(n, coin):
    """Two halves without common masks are two sums; a coordinator finds such a coin in seconds."""
    graph = neighbours(_names(n), Cohort.default(n), coin)
    assert _connected(graph, set(_names(n)))


@pytest.mark.parametrize("n", [101, 150, 300])
def test_honest_silos_stay_connected_when_others_fall_silent_at_random(n):
    """As many as may, in 100 graphs; a failure would be one in millions."""
    cohort, rng = Cohort.default(n), np.random.default_rng(n)
    for coin in range(100):
        graph = neighbours(_names(n), cohort, str(coin))
        honest = rng.permutation(_names(n))[: cohort.n_min - cohort.t_collude]
        assert _connected(graph, set(honest.tolist()))


@pytest.mark.parametrize("n", [101, 150, 300])
def test_honest_silos_stay_connected_without_the_neighbours_of_one(n):
    """The coordinator lets as many neighbours of a victim fall silent as may: others hold on."""
    cohort = Cohort.default(n)
    for coin in range(50):
        graph = neighbours(_names(n), cohort, str(coin))
        victim = _names(n)[coin]
        gone = sorted(graph[victim])[: n - cohort.n_min]
        present = set(_names(n)) - set(gone)
        reached = present - {victim} if not graph[victim] & present else present
        assert _connected(graph, reached)


@pytest.mark.slow
def test_silo_whose_neighbours_fall_silent_goes_no_further():
    """Enough silos are left for the plan, but this one would stand bare; others go on."""
    federation = Federation.of(101, n_min=75, t_collude=5, in_bytes=False)
    whole = federation.round().until("share")
    victim, terms = "silo-007", federation.terms
    graph, holders = terms.graph(whole.roster), terms.holders(whole.roster, victim)
    few = len(holders) - terms.share_threshold
    gone = sorted(graph[victim])[: few + 1]
    assert len(federation.names) - len(gone) >= federation.quorum
    require_neighbours(frozenset(federation.names) - {*gone[1:]}, whole.roster, victim, terms)
    whole.release(gone)
    with refused("too-few"):
        whole.silos[victim].confirm(whole.survivors)
    with refused("too-few"):
        whole.silos[victim].unmask(federation.certificate(whole.alive, whole.survivors))
    whole.alive = [name for name in whole.alive if _has_enough(whole, name)]
    whole.confirm()


def _has_enough(whole, name):
    present = {*whole.survivors.silos} & {*whole.terms.holders(whole.roster, name)}
    return len(present) >= whole.terms.share_threshold


@pytest.mark.slow
def test_silo_with_too_few_neighbours_among_the_participants_masks_nothing():
    federation = Federation.of(101, n_min=75, t_collude=5, in_bytes=False)
    whole = federation.round().until("hello")
    victim, terms = "silo-007", federation.terms
    few = len(terms.holders(whole.roster, victim)) - terms.share_threshold
    whole.share(sorted(terms.graph(whole.roster)[victim])[: few + 1])
    with refused("too-few"):
        whole.silos[victim].release(whole.deliveries()[victim])
