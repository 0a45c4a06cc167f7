"""The autoencoder's beginning, its reach beyond the head, and that descent helps."""

import numpy as np
import pytest

from fondaco.shared.models.autoencoder import Autoencoder, AutoencoderTerms
from fondaco.shared.models.base import Sizes
from fondaco.shared.models.kernel_factors import (
    extended,
    head_facts,
    head_rows,
    log_popularity,
    start_rows,
)

MODEL = Autoencoder()
N_ITEMS, N_HEAD = 12, 8
POPULARITY = np.linspace(20, 1, N_ITEMS)
KINDS = [f"{'odd' if num % 2 else 'even'} thing{num % 3}" for num in range(N_ITEMS)]


@pytest.fixture(scope="module")
def facts(make_facts):
    return make_facts(POPULARITY, N_HEAD, KINDS)


@pytest.fixture(scope="module")
def plain(make_facts):
    return make_facts(POPULARITY, N_HEAD)


def _losses(terms, facts, parameters, timelines):
    from fondaco.shared.models.networks.base import load_parameters  # noqa: PLC0415  (torch)

    network = MODEL.network(terms, facts)
    load_parameters(network, parameters)
    return network.losses(network.encode(timelines)).detach().numpy()


# public beginnings


def test_histories_have_norm_one_and_only_head_items(facts, make_timelines):
    rows = head_rows(make_timelines(np.tri(3, N_ITEMS, -1, dtype=int)[::-1]), facts.model.head)
    expected = np.zeros((3, N_HEAD))
    expected[0, :2], expected[1, 0] = 0.5**0.5, 1.0
    np.testing.assert_allclose(rows, expected)


def test_items_taken_twice_count_once(facts, make_timelines):
    once = make_timelines(np.eye(1, N_ITEMS, dtype=int))
    twice = once.take(np.array([0]))
    object.__setattr__(twice, "item_nums", np.array([0, 0]))
    object.__setattr__(twice, "indptr", np.array([0, 2]))
    head = facts.model.head
    assert np.array_equal(head_rows(once, head), head_rows(twice, head))


@pytest.mark.parametrize("width", [1, 3, N_HEAD])
def test_start_has_mean_squared_norm_one_in_the_popularity_metric(facts, plain, width):
    for these in (facts, plain):
        known = head_facts(these, N_HEAD)
        rows = start_rows(known, width)
        norm = float(known.share @ (rows**2).sum(axis=1))
        assert 1.0 - 1e-9 < norm < 2.0 + 1e-9
        np.testing.assert_allclose(known.share @ rows, 0, atol=1e-9)


def test_start_puts_items_of_equal_features_together(make_facts):
    facts = make_facts(POPULARITY, N_HEAD, ["odd" if num % 2 else "even" for num in range(12)])
    rows = start_rows(head_facts(facts, N_HEAD), 1)[:, 0]
    assert np.sign(rows[0::2]).tolist() == [np.sign(rows[0])] * 4
    assert np.sign(rows[1::2]).tolist() == [-np.sign(rows[0])] * 4


def test_start_leaves_no_unit_dead(facts, plain):
    """A unit that is nought on both sides has no gradient."""
    for these in (facts, plain):
        tables = MODEL.initial(AutoencoderTerms(width=N_HEAD), these).reshape(2, -1)
        assert (np.abs(tables[0].reshape(N_HEAD, -1)).max(axis=1) > 1e-3).all()
        assert (np.abs(tables[1].reshape(-1, N_HEAD)).max(axis=0) > 1e-3).all()


def test_kernel_factors_agree_with_dense_kernels(facts):
    known = head_facts(facts, N_HEAD)
    values = np.random.default_rng(0).normal(size=(N_HEAD, 3))
    weights = np.full(len(known.blocks), 0.7)
    dense = known.kernel(weights) @ values
    apart = sum(0.7 * known.times_kernel(c, values) for c in range(len(known.blocks)))
    np.testing.assert_allclose(apart, dense, atol=1e-9)
    popularity = np.zeros(N_ITEMS)
    popularity[known.head] = known.popularity
    wide = known.catalogue_times_kernel(weights, popularity, values)
    np.testing.assert_allclose(wide[known.head], dense, atol=1e-9)


def test_log_popularity_is_finite_where_nothing_was_sold(make_facts):
    bias = log_popularity(make_facts(np.array([5.0, 1.0, 0.0]), 2))
    assert np.isfinite(bias).all()
    assert bias.argmin() == 2


# beyond the head


def test_items_beyond_the_head_are_regressed_on_features(facts):
    """Kernel ridge regression, written out."""
    rows = np.random.default_rng(0).normal(size=(N_HEAD, 2))
    known = head_facts(facts, N_HEAD)
    cosines = sum((b @ b[known.head].T).toarray() for b in known.blocks)
    regular = cosines[known.head] + np.diag(known.popularity.mean() / known.popularity)
    expected = cosines @ np.linalg.solve(regular, rows)
    expected[known.head] = rows
    np.testing.assert_allclose(extended(facts, rows), expected, atol=1e-5)


def test_items_beyond_the_head_are_by_popularity_without_features(plain, make_timelines):
    terms = AutoencoderTerms(width=3)
    timelines = make_timelines(np.eye(2, N_ITEMS, dtype=int))
    scores = MODEL.scores(terms, plain, MODEL.initial(terms, plain), timelines)
    expected = np.tile(log_popularity(plain)[N_HEAD:], (2, 1))
    np.testing.assert_allclose(scores[:, N_HEAD:], expected, atol=1e-6)


def test_customers_without_a_history_get_popularity(facts, make_timelines):
    terms = AutoencoderTerms(width=3)
    nobody = make_timelines(np.zeros((1, N_ITEMS)))
    scores = MODEL.scores(terms, facts, MODEL.initial(terms, facts), nobody)
    np.testing.assert_allclose(scores[0], log_popularity(facts), atol=1e-6)


def test_scores_follow_the_parameters(facts, make_timelines):
    """What is kept for the next batch must not outlive a change of the tables."""
    terms = AutoencoderTerms(width=3)
    timelines = make_timelines(np.eye(1, N_ITEMS, dtype=int))
    start = MODEL.initial(terms, facts)
    one, other, again = (MODEL.scores(terms, facts, start * f, timelines) for f in (1, 2, 1))
    assert np.array_equal(one, again)
    assert not np.allclose(one[:, N_HEAD:], other[:, N_HEAD:])


# sizes and learning


@pytest.mark.parametrize(("head", "items", "width", "count"), [(8, 5, 3, 30), (8, 99, 64, 128)])
def test_tables_are_as_small_as_the_head_and_the_knobs_say(head, items, width, count):
    terms = AutoencoderTerms(items=items, width=width)
    assert MODEL.n_parameters(terms, Sizes(n_items=N_ITEMS, head=head)) == count


def test_loss_is_the_cross_entropy_of_own_items(plain, make_timelines):
    """Tables of zeros: the chance of an item is its share of popularity."""
    terms = AutoencoderTerms(width=2)
    taken = np.zeros((2, N_ITEMS), dtype=int)
    taken[0, [0, 3]] = 1
    zeros = np.zeros(2 * 2 * N_HEAD, dtype=np.float32)
    found = _losses(terms, plain, zeros, make_timelines(taken))
    share = POPULARITY[:N_HEAD] / POPULARITY[:N_HEAD].sum()
    np.testing.assert_allclose(found, [-(np.log(share[0]) + np.log(share[3])) / 2, 0], atol=1e-5)


def test_gradient_of_a_customer_leads_downhill(facts, make_timelines):
    from fondaco.client.dpsgd import factors  # noqa: PLC0415  (torch takes two seconds)
    from fondaco.shared.models.networks.base import load_parameters  # noqa: PLC0415

    terms = AutoencoderTerms(width=3)
    timelines = make_timelines(np.eye(1, N_ITEMS, 2, dtype=int) + np.eye(1, N_ITEMS, dtype=int))
    start = MODEL.initial(terms, facts)
    network = MODEL.network(terms, facts)
    load_parameters(network, start)
    parts = factors(network, network.encode(timelines))
    slope = np.concatenate([np.outer(p.deltas[0, 0], p.inputs[0, 0]).ravel() for p in parts])
    after = _losses(terms, facts, (start - 0.05 * slope).astype(np.float32), timelines)
    assert after[0] < _losses(terms, facts, start, timelines)[0]


@pytest.mark.parametrize("texts", [None, ["red rug", "red lamp", "rug"]])
def test_the_smallest_head_is_enough(texts, make_facts, make_timelines):
    facts = make_facts(np.array([3.0, 2.0, 1.0]), 2, texts)
    terms = AutoencoderTerms()
    parameters = MODEL.initial(terms, facts)
    assert len(parameters) == MODEL.n_parameters(terms, Sizes(n_items=3, head=2)) == 8
    scores = MODEL.scores(terms, facts, parameters, make_timelines(np.array([[1, 0, 1]])))
    assert np.isfinite(scores).all()
