"""Who shares masks with whom: the same for all, regular, and never parted by those who are gone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from fondaco.shared.privacy.plan import Cohort
from fondaco.shared.secagg.graph import COMPLETE, degree, neighbours, share_threshold

SPARSE = [101, 102, 103, 150, 301, 500, 1000]


def _names(n):
    return tuple(f"silo-{num:04d}" for num in range(n))


def _connected(graph, present):
    """Return whether the silos that are present can all reach each other."""
    place = {name: num for num, name in enumerate(sorted(present))}
    edges = [(place[a], place[b]) for a in present for b in graph[a] if b in place]
    rows, columns = np.array(edges).reshape(-1, 2).T
    table = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(place), len(place)))
    return connected_components(table, directed=False)[0] == 1


def _gone(cohort):
    """Return how many may be silent or collude together."""
    return cohort.n_silos - cohort.n_min + cohort.t_collude


def _order(graph, start):
    """Return the silos as they stand on the circle, found from the graph alone."""
    circle, seen = [start], {start}
    while len(circle) < len(graph):
        last = circle[-1]
        fresh = graph[last] - seen
        circle.append(max(fresh, key=lambda name: len(graph[name] & graph[last])))
        seen.add(circle[-1])
    return circle


@pytest.mark.parametrize("n", [3, 4, 10, COMPLETE])
def test_few_silos_are_all_joined(n):
    graph = neighbours(_names(n), Cohort.default(n), "coin")
    assert all(graph[name] == set(_names(n)) - {name} for name in _names(n))


@pytest.mark.parametrize("n", SPARSE)
@pytest.mark.parametrize("missing", [0, 1, 7])
def test_many_silos_have_equally_many_neighbours_each(n, missing):
    """Also if some did not say hello."""
    cohort, names = Cohort.default(n), _names(n)[missing:]
    graph = neighbours(names, cohort, "coin")
    assert {len(graph[name]) for name in names} == {degree(cohort)}
    assert set(graph) == set(names)


cohorts = st.builds(
    lambda n, silent, t: Cohort(n_silos=n, n_min=n - silent, t_collude=t),
    st.integers(101, 260),
    st.integers(0, 33),
    st.integers(0, 33),
)


@settings(deadline=None, max_examples=60)
@given(cohort=cohorts, coin=st.text(max_size=8), data=st.data())
def test_graph_is_symmetric_and_without_loops(cohort, coin, data):
    absent = data.draw(st.integers(0, cohort.n_silos - cohort.n_min))
    graph = neighbours(_names(cohort.n_silos)[absent:], cohort, coin)
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


@settings(deadline=None, max_examples=200)
@given(cohort=cohorts)
def test_no_silo_can_be_parted_and_no_seed_read_by_those_who_may_be_gone(cohort):
    """More neighbours than may be gone, and enough of them left to give a seed back."""
    k, threshold = degree(cohort), share_threshold(cohort)
    silent = cohort.n_silos - cohort.n_min
    assert threshold > cohort.t_collude
    if k == cohort.n_silos - 1:
        assert threshold == cohort.threshold
        return
    assert k % 2 == 0
    assert k > _gone(cohort)
    assert k - silent >= threshold


@settings(deadline=None, max_examples=100)
@given(cohort=cohorts, data=st.data())
def test_honest_survivors_hang_together_whoever_is_gone(cohort, data):
    """Gone: a run on either side of some silos, then anybody: the worst cuts of a circle."""
    absent = data.draw(st.integers(0, cohort.n_silos - cohort.n_min))
    names = _names(cohort.n_silos)[absent:]
    graph = neighbours(names, cohort, data.draw(st.text(max_size=4)))
    circle, gone = _order(graph, names[0]), _gone(cohort) - absent
    left = data.draw(st.integers(0, gone))
    start, width = data.draw(st.integers(0, len(names))), data.draw(st.integers(1, 20))
    cut = {circle[(start + num) % len(names)] for num in range(left)}
    cut |= {circle[(start + left + width + num) % len(names)] for num in range(gone - left)}
    assert _connected(graph, set(names) - cut)


@pytest.mark.parametrize("n", [101, 150, 300])
def test_honest_survivors_hang_together_in_random_trials(n):
    cohort, rng = Cohort.default(n), np.random.default_rng(n)
    for coin in range(100):
        graph = neighbours(_names(n), cohort, str(coin))
        present = rng.permutation(_names(n))[_gone(cohort) :]
        assert _connected(graph, set(present.tolist()))


@pytest.mark.parametrize("n", [101, 102, 300])
def test_neighbours_of_one_that_may_fall_silent_never_leave_it_alone(n):
    cohort = Cohort.default(n)
    for coin in range(50):
        graph = neighbours(_names(n), cohort, str(coin))
        victim = _names(n)[coin]
        gone = sorted(graph[victim])[: _gone(cohort)]
        assert _connected(graph, set(_names(n)) - set(gone))


def test_graph_never_falls_apart():
    """Random distances did: with the first coin all of 102 silos' were even."""
    for coin in ("25466", *map(str, range(500))):
        graph = neighbours(_names(102), Cohort.default(102), coin)
        assert _connected(graph, set(_names(102)))
