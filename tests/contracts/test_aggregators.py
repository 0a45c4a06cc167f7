import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fondaco.server.aggregation import AGGREGATORS

UPDATES = st.lists(
    hnp.arrays(np.int64, 4, elements=st.integers(-(2**50), 2**50)), min_size=1, max_size=6
)

each = pytest.mark.parametrize("aggregator", AGGREGATORS.values(), ids=AGGREGATORS.keys())


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
    result = _aggregate(aggregator, updates[:1])
    assert result.dtype == np.int64
    assert np.array_equal(result, updates[0])


@each
@given(updates=UPDATES)
def test_aggregate_leaves_the_updates_as_they_were(aggregator, updates):
    before = [update.copy() for update in updates]
    _aggregate(aggregator, updates)
    assert all(np.array_equal(a, b) for a, b in zip(before, updates, strict=True))


@each
def test_aggregate_of_nothing_has_its_length(aggregator):
    assert aggregator(4).result().shape == (4,)


@each
def test_aggregator_refuses_an_update_of_another_length(aggregator):
    with pytest.raises(ValueError, match="broadcast"):
        aggregator(4).add(np.zeros(3, dtype=np.int64))


@each
def test_aggregator_says_whether_it_needs_each_update(aggregator):
    assert isinstance(aggregator.needs_each_update, bool)
    assert inspect.getdoc(aggregator)


@given(updates=UPDATES)
def test_sum_is_exact(updates):
    expected = [sum(column) for column in zip(*(u.tolist() for u in updates), strict=True)]
    assert _aggregate(AGGREGATORS["sum"], updates).tolist() == expected
