import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fondaco.server.aggregation import AGGREGATORS

LARGEST = 2**50  # of one number in an update: float64 still holds the sum of six exactly
UPDATES = st.lists(
    hnp.arrays(np.int64, 4, elements=st.integers(-LARGEST, LARGEST)), min_size=1, max_size=6
)

each = pytest.mark.parametrize("aggregator", AGGREGATORS.values(), ids=AGGREGATORS.keys())
averages = [name for name in AGGREGATORS if name != "sum"]
robust = [name for name in AGGREGATORS if AGGREGATORS[name].needs_each_update]
each_average = pytest.mark.parametrize("name", averages)
each_robust = pytest.mark.parametrize("name", robust)


def _aggregate(aggregator, updates):
    state = aggregator(4)
    for update in updates:
        state.add(update)
    return state.result()


@each
@given(updates=UPDATES, data=st.data())
def test_aggregate_does_not_depend_on_the_order(aggregator, updates, data):
    shuffled = data.draw(st.permutations(updates))
    assert np.array_equal(_aggregate(aggregator, shuffled), _aggregate(aggregator, updates))


@each
@given(updates=UPDATES)
def test_aggregate_of_one_update_is_that_update(aggregator, updates):
    assert np.array_equal(_aggregate(aggregator, updates[:1]), updates[0])


@each
@given(updates=UPDATES)
def test_aggregate_leaves_the_updates_as_they_were(aggregator, updates):
    before = [update.copy() for update in updates]
    _aggregate(aggregator, updates)
    assert all(np.array_equal(a, b) for a, b in zip(before, updates, strict=True))


@each
def test_aggregator_refuses_an_update_of_another_length(aggregator):
    state = aggregator(4)
    with pytest.raises(ValueError, match="broadcast"):
        state.add(np.zeros(3, dtype=np.int64))


@each
def test_aggregator_says_whether_it_needs_each_update(aggregator):
    assert isinstance(aggregator.needs_each_update, bool)
    assert inspect.getdoc(aggregator)


def test_only_what_sorts_needs_each_update():
    """Secure aggregation shows sums alone; the plan may join silos by nothing else there."""
    needing = {name for name in AGGREGATORS if AGGREGATORS[name].needs_each_update}
    assert needing == {"trimmed_mean", "median"}


@given(updates=UPDATES)
def test_sum_is_exact(updates):
    expected = [sum(column) for column in zip(*(u.tolist() for u in updates), strict=True)]
    result = _aggregate(AGGREGATORS["sum"], updates)
    assert result.dtype == np.int64
    assert result.tolist() == expected


def test_sum_of_nothing_is_zeros():
    assert AGGREGATORS["sum"](4).result().tolist() == [0, 0, 0, 0]


def test_mean_follows_public_weights():
    state = AGGREGATORS["mean"](2)
    state.add(np.array([10, -10]), 1.0)
    state.add(np.array([40, 20]), 3.0)
    assert state.result().tolist() == [32.5, 12.5]


@each_average
@given(updates=UPDATES)
def test_average_lies_between_the_extremes(name, updates):
    result = _aggregate(AGGREGATORS[name], updates)
    assert np.all(result >= np.min(updates, axis=0) - 1)
    assert np.all(result <= np.max(updates, axis=0) + 1)


@each_robust
@given(
    wild=hnp.arrays(np.int64, 4, elements=st.integers(-LARGEST, LARGEST)), place=st.integers(0, 9)
)
def test_one_wild_silo_never_leaves_the_span_of_the_others(name, wild, place):
    honest = [np.full(4, 100 + num) for num in range(9)]
    result = _aggregate(AGGREGATORS[name], [*honest[:place], wild, *honest[place:]])
    assert np.all((result >= 100) & (result <= 108))
    assert np.abs(result - 104).max() <= 1


@each_robust
def test_no_silo_outweighs_the_others_where_one_may_be_wild(name):
    state = AGGREGATORS[name](1)
    for value, weight in ((1, 1.0), (2, 1.0), (900, 100.0)):
        state.add(np.array([value]), weight)
    assert state.result().tolist() == [2.0]


def test_trimmed_mean_leaves_out_a_tenth_at_each_end():
    updates = [np.array([value] * 4) for value in (*range(1, 19), -(10**9), 10**9)]
    assert _aggregate(AGGREGATORS["trimmed_mean"], updates).tolist() == [9.5] * 4


def test_median_of_an_even_number_is_the_middle_of_both():
    updates = [np.array([value] * 4) for value in (5, 1, 2, 8)]
    assert _aggregate(AGGREGATORS["median"], updates).tolist() == [3.5] * 4
