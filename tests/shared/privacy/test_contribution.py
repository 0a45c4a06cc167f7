import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.contribution import Histories, bound_contributions


def _array(*values):
    return np.array(values, dtype=np.int64)


ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(-2, 9)), max_size=60)


def test_bound_contributions_counts_repeated_rows_once():
    histories = bound_contributions(_array(0, 0, 0, 1), _array(2, 2, 1, 2), 2, 3)
    assert histories.indptr.tolist() == [0, 2, 3]
    assert histories.item_nums.tolist() == [1, 2, 2]


def test_bound_contributions_ignores_items_outside_of_the_catalogue():
    histories = bound_contributions(_array(0, 0, 1), _array(-1, 3, 99), 2, 3)
    assert histories.lengths.tolist() == [0, 0]


def test_bound_contributions_keeps_every_item_of_a_giant_customer():
    histories = bound_contributions(np.zeros(10_000, dtype=np.int64), np.arange(10_000), 1, 10_000)
    assert histories.lengths.tolist() == [10_000]


def test_bound_contributions_of_a_silo_without_customers_is_empty():
    assert bound_contributions(_array(), _array(), 0, 3).n_users == 0


@pytest.mark.parametrize("user", [-1, 2])
def test_bound_contributions_refuses_a_stranger_without_counting_customers(user):
    with pytest.raises(ConfigError) as caught:
        bound_contributions(_array(user), _array(0), 2, 3)
    assert not any(char.isdigit() for char in str(caught.value))


@given(ROWS, st.integers(0, 5))
def test_removing_a_customers_rows_empties_that_history_and_no_other(rows, gone):
    users, items = _array(*[u for u, _ in rows]), _array(*[i for _, i in rows])
    stays = users != gone
    before = bound_contributions(users, items, 6, 8)
    after = bound_contributions(users[stays], items[stays], 6, 8)
    for user in range(6):
        part = slice(before.indptr[user], before.indptr[user + 1])
        rest = slice(after.indptr[user], after.indptr[user + 1])
        expected = [] if user == gone else before.item_nums[part].tolist()
        assert after.item_nums[rest].tolist() == expected


@given(ROWS, st.permutations(range(8)), st.integers(0, 8))
def test_restrict_keeps_the_heads_items_under_their_new_numbers(rows, order, size):
    users, items = _array(*[u for u, _ in rows]), _array(*[i for _, i in rows])
    histories = bound_contributions(users, items, 6, 8)
    head = _array(*order[:size])
    inside = histories.restrict(head)
    old = {(u, i) for u, i in zip(histories.user_nums(), histories.item_nums, strict=True)}
    new = {(u, head[i]) for u, i in zip(inside.user_nums(), inside.item_nums, strict=True)}
    assert new == {(u, i) for u, i in old if i in head}


@pytest.mark.parametrize("head", [(0, 0), (0, 3), (-1, 1)])
def test_restrict_refuses_a_head_that_repeats_or_leaves_the_catalogue(head):
    histories = bound_contributions(_array(0), _array(0), 1, 3)
    with pytest.raises(ConfigError):
        histories.restrict(_array(*head))


@pytest.mark.parametrize(
    ("indptr", "items"),
    [
        ((0, 2), (1, 1)),  # twice the same item: would weigh twice
        ((0, 2), (2, 1)),  # not ascending
        ((0, 1), (3,)),  # outside of the catalogue
        ((0, 1), (-1,)),
        ((0, 2, 1), (0, 1)),  # negative length
        ((0, 1), (0, 1)),  # rows of nobody
        ((1, 1), (0,)),
        ((), ()),
    ],
)
def test_histories_refuse_arrays_that_the_bounds_do_not_cover(indptr, items):
    with pytest.raises(ConfigError):
        Histories(indptr=_array(*indptr), item_nums=_array(*items), n_items=3)
