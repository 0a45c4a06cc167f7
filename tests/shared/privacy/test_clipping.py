import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fondaco.shared.errors import ConfigError, PrivacyError
from fondaco.shared.privacy import clipping
from fondaco.shared.privacy.clipping import gram_dim, gram_sum, popularity_sum
from fondaco.shared.privacy.contribution import bound_contributions

GRID = 2**20
N_ITEMS = 12

CUSTOMERS = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=40), min_size=1, max_size=8)
GRIDS = st.one_of(st.sampled_from([1, 7, 1000, GRID, clipping.MAX_GRID]), st.integers(1, 2**24))


def _histories(customers, n_items=N_ITEMS):
    users = np.repeat(np.arange(len(customers)), [len(c) for c in customers])
    items = np.array([i for c in customers for i in c], dtype=np.int64)
    return bound_contributions(users.astype(np.int64), items, len(customers), n_items)


def _squared_norm(values):
    return sum(value * value for value in values.tolist())


def _without(customers, gone):
    return [[] if num == gone else items for num, items in enumerate(customers)]


@pytest.mark.parametrize("statistic", [popularity_sum, gram_sum])
@given(customers=CUSTOMERS, grid=GRIDS)
@settings(max_examples=300, deadline=None)
def test_removing_any_one_customer_moves_the_sum_by_at_most_its_sensitivity(
    statistic, customers, grid
):
    whole = statistic(_histories(customers), grid)
    for gone in range(len(customers)):
        rest = statistic(_histories(_without(customers, gone)), grid)
        assert _squared_norm(whole.values - rest.values) <= whole.sens_grid**2 == grid**2


@pytest.mark.parametrize("statistic", [popularity_sum, gram_sum])
@given(customers=CUSTOMERS)
@settings(max_examples=50, deadline=None)
def test_a_customer_who_never_came_equals_one_without_items(statistic, customers):
    rest = statistic(_histories([*customers, []]), GRID)
    assert np.array_equal(rest.values, statistic(_histories(customers), GRID).values)


def _z_of(items, n_head, grid):
    """One customer's z by its definition, entry by entry, in Python integers."""
    row = [int(i in items) for i in range(n_head)]
    n = sum(row)
    diagonal = [grid * a // n if n else 0 for a in row]
    off = math.isqrt(2 * grid**2 // n**2) if n else 0
    return diagonal + [off * row[i] * row[j] for i in range(n_head) for j in range(i + 1, n_head)]


@given(CUSTOMERS, GRIDS)
@settings(max_examples=100, deadline=None)
def test_gram_sum_is_the_sum_of_the_customers_outer_products(customers, grid):
    rows = [_z_of(set(items), N_ITEMS, grid) for items in customers]
    expected = [sum(column) for column in zip(*rows, strict=True)]
    assert gram_sum(_histories(customers), grid).values.tolist() == expected


@given(CUSTOMERS, GRIDS)
@settings(max_examples=100, deadline=None)
def test_popularity_sum_is_the_sum_of_the_customers_weights(customers, grid):
    expected = [0] * N_ITEMS
    for items in map(set, customers):
        for item in items:
            expected[item] += math.isqrt(grid**2 // len(items))
    assert popularity_sum(_histories(customers), grid).values.tolist() == expected


def test_gram_sum_of_two_items_by_hand():
    total = gram_sum(_histories([[0, 1]], n_items=2), 1000)
    assert total.values.tolist() == [500, 500, 707]  # 1000/2, 1000/2, sqrt(2) 1000/2


def test_gram_sum_loses_less_than_one_grid_step_per_entry():
    customers = [[0, 3, 5], [1, 3], [3], list(range(N_ITEMS))]
    dense = np.zeros((4, N_ITEMS))
    for num, items in enumerate(customers):
        dense[num, items] = 1 / math.sqrt(len(items))
    gram = dense.T @ dense
    upper = math.sqrt(2) * gram[np.triu_indices(N_ITEMS, 1)]
    exact = np.concatenate([np.diag(gram), upper]) * GRID
    error = exact - gram_sum(_histories(customers), GRID).values
    assert error.min() > -1e-6
    assert error.max() < len(customers)


@pytest.mark.parametrize("statistic", [popularity_sum, gram_sum])
def test_a_customer_with_the_whole_catalogue_weighs_no_more_than_one_with_one_item(statistic):
    giant = statistic(_histories([list(range(500)) * 20], n_items=500), GRID)
    small = statistic(_histories([[7]], n_items=500), GRID)
    assert _squared_norm(giant.values) <= _squared_norm(small.values) == GRID**2


@pytest.mark.parametrize("statistic", [popularity_sum, gram_sum])
def test_a_weight_wastes_less_than_a_thousandth_of_the_bound(statistic):
    for n in (1, 2, 3, 50, 200):
        total = statistic(_histories([list(range(n))], n_items=200), GRID)
        assert _squared_norm(total.values) > 0.999 * GRID**2


@pytest.mark.parametrize("statistic", [popularity_sum, gram_sum])
@pytest.mark.parametrize("customers", [[], [[]], [[], [], []]])
def test_a_silo_without_purchases_gives_zeros_of_the_same_length(statistic, customers):
    values = statistic(_histories(customers), GRID).values
    assert len(values) == len(statistic(_histories([[1, 2]]), GRID).values)
    assert not values.any()


def test_gram_sum_is_the_same_whatever_the_batch(monkeypatch):
    rng = np.random.default_rng(0)
    customers = [rng.integers(N_ITEMS, size=size).tolist() for size in rng.integers(9, size=50)]
    whole = gram_sum(_histories(customers), GRID).values
    monkeypatch.setattr(clipping, "_BATCH", 7)
    assert np.array_equal(gram_sum(_histories(customers), GRID).values, whole)


def test_gram_sum_stays_exact_at_the_largest_grid_and_a_full_batch():
    n = clipping._BATCH + 1
    total = gram_sum(_histories([[0, 1]] * n, n_items=2), clipping.MAX_GRID)
    weight = math.isqrt(2 * clipping.MAX_GRID**2 // 4)
    assert total.values.tolist() == [n * 2**23, n * 2**23, n * weight]


@pytest.mark.parametrize("n_head", [1, 2, 5, 40])
def test_gram_dim_is_the_length_of_the_gram(n_head):
    assert gram_dim(n_head) == len(gram_sum(_histories([[0]], n_items=n_head), GRID).values)


@pytest.mark.parametrize("statistic", [popularity_sum, gram_sum])
@pytest.mark.parametrize("grid", [0, -1, clipping.MAX_GRID + 1])
def test_a_grid_out_of_range_is_refused_whatever_the_data(statistic, grid):
    for customers in ([], [[0]]):
        with pytest.raises(ConfigError, match="grid"):
            statistic(_histories(customers), grid)


@pytest.mark.parametrize("statistic", [popularity_sum, gram_sum])
@pytest.mark.parametrize("n", [1, 2, 3, 7, N_ITEMS])
@pytest.mark.parametrize("grid", [7, 1000, GRID])
def test_norm_held_against_the_bound_is_the_customers_own(monkeypatch, statistic, n, grid):
    """The check can never fail today; it must not be blind the day the weights change."""
    held, weigh_all = [], clipping._weights_by_length

    def spy(lengths, weigh, grid):
        held.append(weigh(n)[1])
        return weigh_all(lengths, weigh, grid)

    monkeypatch.setattr(clipping, "_weights_by_length", spy)
    values = statistic(_histories([list(range(n))]), grid).values
    assert held == [_squared_norm(values)]


def test_weight_above_the_bound_is_refused_before_anything_is_summed():
    lengths = np.array([0, 2, 1])
    weights = clipping._weights_by_length(lengths, lambda n: (n, 49), 7)
    assert weights.tolist() == [0, 2, 1]
    with pytest.raises(PrivacyError, match="exceeds the bound"):
        clipping._weights_by_length(lengths, lambda n: (n, 50), 7)
