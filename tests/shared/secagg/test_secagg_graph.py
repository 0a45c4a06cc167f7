"""Who shares masks and seeds with whom: the claims of `graph`, against whoever may choose."""

import hashlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, maximum_flow

from fondaco.shared.privacy.plan import Cohort
from fondaco.shared.secagg.graph import (
    ALL_HOLD,
    ALL_MASK,
    degree,
    holders,
    neighbours,
    share_threshold,
)

SPARSE = [101, 102, 103, 150, 301, 500, 1000]
EXACT = [(101, 100, 0), (101, 90, 10), (102, 92, 10), (103, 80, 12), (120, 108, 12)]


def _names(n):
    return tuple(f"silo-{num:04d}" for num in range(n))


def _connected(graph, present):
    """Return whether the silos that are present can all reach each other."""
    place = {name: num for num, name in enumerate(sorted(present))}
    edges = [(place[a], place[b]) for a in present for b in graph[a] if b in place]
    rows, columns = np.array(edges).reshape(-1, 2).T
    table = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(place), len(place)))
    return connected_components(table, directed=False)[0] == 1


def _circle(names, coin):
    """Return the silos as they stand on the circle."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{coin}\0{name}".encode()).digest())


def _gone(cohort, present):
    """Return how many of those who are present may yet be silent or collude."""
    return present - cohort.n_min + cohort.t_collude


@st.composite
def cohorts(draw, least=3, most=1000):
    """Any that may mask; likely with many who may be gone, or with as few as can be."""
    n = draw(st.integers(least, most))
    t = draw(st.integers(0, n // 3) | st.integers(0, n - 2) | st.just(n // 10))
    threshold = Cohort(n_silos=n, n_min=n, t_collude=t).threshold
    n_min = draw(st.integers(threshold, n) | st.sampled_from([threshold, n]))
    cohort = Cohort(n_silos=n, n_min=n_min, t_collude=t)
    assume(cohort.may_mask)
    return cohort


@st.composite
def rosters(draw, least=3, most=1000):
    """Return a cohort, who said hello, and the coin."""
    cohort = draw(cohorts(least, most))
    present = draw(st.integers(cohort.n_min, cohort.n_silos))
    first = draw(st.integers(0, cohort.n_silos - present))
    return cohort, _names(cohort.n_silos)[first:][:present], draw(st.text(max_size=4))


# Shape


@pytest.mark.parametrize("n", [3, 4, 10, ALL_HOLD, ALL_MASK])
def test_few_silos_are_all_joined(n):
    graph = neighbours(_names(n), Cohort.default(n), "coin")
    assert all(graph[name] == set(_names(n)) - {name} for name in _names(n))
    held = holders(_names(n), Cohort.default(n), "coin")
    assert (held == graph) == (n <= ALL_HOLD)


@pytest.mark.parametrize("n", SPARSE)
@pytest.mark.parametrize("missing", [0, 1, 7])
def test_many_silos_have_equally_many_neighbours_each(n, missing):
    """Also if some did not say hello."""
    cohort, names = Cohort.default(n), _names(n)[missing:]
    for all_of, make in ((ALL_MASK, neighbours), (ALL_HOLD, holders)):
        graph = make(names, cohort, "coin")
        assert {len(graph[name]) for name in names} == {degree(cohort, all_of)}
        assert set(graph) == set(names)


@settings(deadline=None, max_examples=60)
@given(roster=rosters(most=300))
def test_relations_are_symmetric_regular_and_without_loops(roster):
    cohort, names, coin = roster
    for all_of, make in ((ALL_MASK, neighbours), (ALL_HOLD, holders)):
        graph = make(names, cohort, coin)
        for name, others in graph.items():
            assert name not in others
            assert all(name in graph[other] for other in others)
            assert len(others) == min(degree(cohort, all_of), len(names) - 1)


@settings(deadline=None, max_examples=60)
@given(roster=rosters(most=300))
def test_everybody_is_joined_to_the_nearest_on_a_circle(roster):
    cohort, names, coin = roster
    circle, n = _circle(names, coin), len(names)
    for all_of, make in ((ALL_MASK, neighbours), (ALL_HOLD, holders)):
        graph, half = make(names, cohort, coin), (degree(cohort, all_of) + 1) // 2
        for place in range(0, n, 1 + n // 10):
            near = {circle[(place + step) % n] for step in range(-half, half + 1)}
            assert graph[circle[place]] == near - {circle[place]}


def test_circle_depends_on_the_coin_and_on_nothing_else():
    names, cohort = _names(150), Cohort.default(150)
    for make in (neighbours, holders):
        graph = make(names, cohort, "coin")
        assert make(names[::-1], cohort, "coin") == graph
        assert make(names, cohort, "another coin") != graph


# Claims of numbers, for every cohort


@settings(deadline=None, max_examples=300)
@given(cohort=cohorts())
def test_more_neighbours_and_holders_than_may_be_gone(cohort):
    for all_of in (ALL_MASK, ALL_HOLD):
        k = degree(cohort, all_of)
        assert k == cohort.n_silos - 1 or (
            k % 2 == 0 and _gone(cohort, cohort.n_silos) < k < cohort.n_silos - 1
        )


@settings(deadline=None, max_examples=300)
@given(cohort=cohorts())
def test_colluders_hold_too_few_shares_of_any_seed(cohort):
    """Each holds one of each; a threshold of one would make every holder a colluder."""
    assert share_threshold(cohort) > max(1, cohort.t_collude)


@settings(deadline=None, max_examples=300)
@given(cohort=cohorts())
def test_no_two_sets_of_survivors_are_certified(cohort):
    """Shares are needed from too few to prove it: the signatures alone keep the sets apart."""
    assert 2 * cohort.threshold - cohort.n_silos > cohort.t_collude


@settings(deadline=None, max_examples=60)
@given(roster=rosters(), data=st.data())
def test_those_who_stay_can_give_every_seed_back(roster, data):
    """Silent are as many as may be, a silo and those who hold its seeds first of all."""
    cohort, names, coin = roster
    held, threshold = holders(names, cohort, coin), share_threshold(cohort)
    for victim in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=5)):
        whole = {*held[victim], victim}
        silent = [victim, *sorted(held[victim]), *sorted({*names} - whole)]
        assert len(whole - {*silent[: len(names) - cohort.n_min]}) >= threshold


# Whoever is gone


@settings(deadline=None, max_examples=60)
@given(roster=rosters(least=101), data=st.data())
def test_no_two_runs_of_the_circle_part_the_honest(roster, data):
    """The smallest cuts of a circle: a run on either side of one silo, or of some."""
    cohort, names, coin = roster
    graph, circle, n = neighbours(names, cohort, coin), _circle(names, coin), len(names)
    gone = _gone(cohort, n)
    assume(gone <= n - 2)
    one = data.draw(st.integers(0, gone) | st.just(gone // 2))
    width = data.draw(st.integers(1, n - gone - 1) | st.just(1))
    start = data.draw(st.integers(0, n - 1))
    runs = [*range(one), *range(one + width, width + gone)]
    cut = {circle[(start + step) % n] for step in runs}
    assert len(cut) == gone
    assert _connected(graph, {*names} - cut)


@settings(deadline=None, max_examples=60)
@given(roster=rosters(least=101), data=st.data())
def test_nobody_loses_its_last_neighbour(roster, data):
    """Gone are neighbours of one silo only, from the near or from the far end."""
    cohort, names, coin = roster
    graph, circle = neighbours(names, cohort, coin), _circle(names, coin)
    victim = data.draw(st.sampled_from(names))
    near = [name for name in circle if name in graph[victim]]
    if data.draw(st.booleans()):
        near.reverse()
    gone = near[: _gone(cohort, len(names))]
    assert graph[victim] - {*gone}
    assert _connected(graph, {*names} - {*gone})


@settings(deadline=None, max_examples=60)
@given(roster=rosters(least=101), seed=st.integers(0, 2**32), runs=st.integers(2, 9))
def test_no_choice_of_runs_or_of_anybody_parts_the_honest(roster, seed, runs):
    cohort, names, coin = roster
    graph, circle = neighbours(names, cohort, coin), _circle(names, coin)
    rng = np.random.default_rng(seed)
    gone, n = _gone(cohort, len(names)), len(names)
    scattered = rng.permutation(n)[:gone]
    starts = rng.integers(0, n, runs)
    run = (starts[:, None] + np.arange(gone // runs)) % n
    for places in (scattered, run.ravel()):
        assert _connected(graph, {*names} - {circle[place] for place in places})


@pytest.mark.parametrize("numbers", EXACT, ids=str)
def test_every_two_silos_have_more_ways_than_may_be_gone(numbers):
    """Menger's theorem, exactly: k ways without a common silo from one silo to any other.

    Turned, the circle is the same; so whatever cut there is parts this silo from another.
    """
    n, n_min, t_collude = numbers
    cohort = Cohort(n_silos=n, n_min=n_min, t_collude=t_collude)
    graph, circle = neighbours(_names(n), cohort, "coin"), _circle(_names(n), "coin")
    place = {name: num for num, name in enumerate(circle)}
    edges = [(n + place[a], place[b]) for a in circle for b in graph[a]]
    rows, columns = np.array([*edges, *((num, n + num) for num in range(n))]).T
    flows = csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=(2 * n, 2 * n))
    apart = [place[name] for name in circle[1:] if name not in graph[circle[0]]]
    ways = [maximum_flow(flows, n, other).flow_value for other in apart]
    assert apart
    assert min(ways) == degree(cohort, ALL_MASK) > _gone(cohort, n)


def test_graph_never_falls_apart():
    """Random distances did: with the first coin all of 102 silos' were even."""
    for coin in ("25466", *map(str, range(500))):
        graph = neighbours(_names(102), Cohort.default(102), coin)
        assert _connected(graph, set(_names(102)))
