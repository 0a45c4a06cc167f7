import hypothesis.extra.numpy as hnp
import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from fondaco.shared import metrics
from fondaco.shared.errors import ConfigError


def _empty(shape):
    return csr_matrix(shape, dtype=np.float64)


def _market(seed, n_users=40, n_items=60):
    """Scores, history and at least one target per customer, disjoint from the history."""
    rng = np.random.default_rng(seed)
    kind = rng.random((n_users, n_items))
    kind[np.arange(n_users), rng.integers(n_items, size=n_users)] = 0.0
    history = csr_matrix(kind > 0.8)
    targets = csr_matrix(kind < 0.1)
    scores = rng.standard_normal((n_users, n_items))
    return scores, history, targets


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 7, 60, 75])
def test_rank_topk_equals_a_full_stable_sort(dtype, k):
    scores, history, _ = _market(0)
    scores = np.round(scores, 1).astype(dtype)  # many ties
    scores[:, 3], scores[5], scores[:, 9], scores[6, :40] = np.nan, np.nan, -np.inf, np.inf
    for row, items in enumerate(metrics.rank_topk(scores, history, k)):
        known = set(range(60)) - set(history[row].indices)
        key = np.where(np.isnan(scores[row]), np.inf, -scores[row].astype(float))
        oracle = sorted(
            known, key=lambda i, row=row, key=key: (np.isnan(scores[row, i]), key[i], i)
        )
        oracle = (oracle + [-1] * 75)[:k]
        assert items.tolist() == oracle


def test_rank_topk_gives_minus_one_where_nothing_is_left():
    scores = np.array([[3.0, np.nan, 1.0]])
    history = csr_matrix(np.array([[1.0, 0.0, 0.0]]))
    assert metrics.rank_topk(scores, history, 4).tolist() == [[2, 1, -1, -1]]


def test_rank_topk_masks_stored_zeros_and_treats_minus_zero_as_zero():
    history = csr_matrix((np.zeros(1), ([0], [1])), shape=(1, 3))
    assert metrics.rank_topk(np.array([[0.0, 9.0, -0.0]]), history, 2).tolist() == [[0, 2]]
    assert metrics.rank_topk(np.array([[-0.0, 9.0, 0.0]]), history, 2).tolist() == [[0, 2]]


def test_rank_topk_does_not_depend_on_batches_nor_change_its_input():
    scores, history, _ = _market(1)
    before = scores.copy()
    whole = metrics.rank_topk(scores, history, 10)
    assert (metrics.rank_topk(scores, history, 10, batch_users=7) == whole).all()
    assert (scores == before).all()


def test_rank_topk_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match="same two numbers"):
        metrics.rank_topk(np.zeros((2, 3)), _empty((3, 3)), 1)
    with pytest.raises(ValueError, match="k=0"):
        metrics.rank_topk(np.zeros((2, 3)), _empty((2, 3)), 0)


def test_ndcg_and_recall_follow_their_formulas_by_hand():
    ranking = np.array([[4, 0, 2]])
    targets = csr_matrix(np.array([[1, 0, 1, 1, 0]]))
    values = metrics.evaluate(
        ranking, targets, ("ndcg@3", "recall@3", "recall@2"), popularity=np.ones(5)
    )
    ideal = 1 + 1 / np.log2(3) + 1 / 2
    assert values["ndcg@3"][0] == pytest.approx((1 / np.log2(3) + 1 / 2) / ideal)
    assert values["recall@3"][0] == pytest.approx(2 / 3)
    assert values["recall@2"][0] == pytest.approx(1 / 2)


@pytest.mark.parametrize("seed", range(3))
def test_ndcg_and_recall_equal_ir_measures(seed):
    scores, history, targets = _market(seed)
    ranking = metrics.rank_topk(scores, history, 20)
    names = ("ndcg@5", "ndcg@10", "ndcg@20", "recall@20")
    ours = metrics.evaluate(ranking, targets, names, popularity=np.ones(60))
    oracle = _oracle(ranking, targets, ["nDCG@5", "nDCG@10", "nDCG@20", "R@20"])
    assert np.diff(targets.indptr).max() <= 20  # both recalls have the same denominator
    for name, theirs in zip(names, ["nDCG@5", "nDCG@10", "nDCG@20", "R@20"], strict=True):
        np.testing.assert_allclose(ours[name], oracle[theirs], atol=1e-12)


def _oracle(ranking, targets, names):
    qrels = {str(u): {str(i): 1 for i in targets[u].indices} for u in range(len(ranking))}
    run = {
        str(u): {str(i): float(-rank) for rank, i in enumerate(items)}
        for u, items in enumerate(ranking)
    }
    out = {name: np.zeros(len(ranking)) for name in names}
    measures = [ir_measures.parse_measure(name) for name in names]
    for row in ir_measures.iter_calc(measures, qrels, run):
        out[str(row.measure)][int(row.query_id)] = row.value
    return out


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_metrics_of_a_perfect_ranking_are_one(seed, k):
    _, history, targets = _market(seed, n_users=5, n_items=20)
    ranking = metrics.rank_topk(targets.toarray().astype(float), history, k)
    values = metrics.evaluate(
        ranking, targets, (f"ndcg@{k}", f"recall@{k}"), popularity=np.ones(20)
    )
    np.testing.assert_allclose(values[f"ndcg@{k}"], 1.0)
    np.testing.assert_allclose(values[f"recall@{k}"], 1.0)


@given(st.integers(0, 2**32 - 1))
def test_metrics_do_not_depend_on_how_items_are_numbered(seed):
    scores, history, targets = _market(seed, n_users=5, n_items=20)
    order = np.random.default_rng(seed).permutation(20)
    plain = _ndcg10(scores, history, targets)
    shuffled = _ndcg10(scores[:, order], history[:, order].tocsr(), targets[:, order].tocsr())
    np.testing.assert_allclose(plain, shuffled)


def _ndcg10(scores, history, targets):
    ranking = metrics.rank_topk(scores, history, 10)
    return metrics.evaluate(ranking, targets, ("ndcg@10",), popularity=np.ones(20))["ndcg@10"]


@given(hnp.arrays(bool, 10), st.integers(0, 8))
def test_ndcg_rises_when_a_hit_moves_up(hit, rank):
    if not (hit[rank + 1] and not hit[rank]):
        hit[rank], hit[rank + 1] = False, True
    swapped = hit.copy()
    swapped[[rank, rank + 1]] = True, False
    n_relevant = np.array([hit.sum()])
    worse, better = (metrics.ndcg(h[None], n_relevant, 10)[0] for h in (hit, swapped))
    assert 0 <= worse < better <= 1 + 1e-12


def test_evaluate_refuses_customers_without_targets_and_short_rankings():
    ranking = np.array([[0, 1]])
    with pytest.raises(ValueError, match="customer number 0 has no target"):
        metrics.evaluate(ranking, _empty((1, 3)), ("ndcg@2",), popularity=np.ones(3))
    with pytest.raises(ValueError, match="too short"):
        metrics.evaluate(ranking, csr_matrix(np.eye(1, 3)), ("ndcg@3",), popularity=np.ones(3))


def test_novelty_is_the_mean_surprise_in_bits():
    popularity = np.array([7.0, 3.0, 1.0, 1.0])  # plus one each: 8, 4, 2, 2 of 16
    ranking = np.array([[0, 1, 2], [2, -1, -1], [-1, -1, -1]])
    np.testing.assert_allclose(metrics.novelty(ranking, popularity, 3), [2.0, 3.0, 0.0])


def test_coverage_counts_distinct_items_in_the_first_ranks():
    assert metrics.coverage(np.array([[0, 1, 7], [1, -1, 5]]), 10, 2) == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "hr@10", "ndcg@²", "@5"])
def test_parse_metric_refuses_what_it_does_not_know(name):
    with pytest.raises(ConfigError):
        metrics.parse_metric(name)


def test_parse_metric_reads_kind_and_length():
    assert metrics.parse_metric("recall@20") == metrics.Metric("recall", 20)
    assert str(metrics.parse_metric("ndcg@100")) == "ndcg@100"


def test_evaluate_refuses_coverage_by_name():
    with pytest.raises(ConfigError, match="no value per customer"):
        metrics.evaluate(
            np.zeros((1, 9), int), csr_matrix(np.eye(1)), ("coverage@9",), popularity=np.ones(1)
        )


def test_bootstrap_mean_has_the_width_of_the_normal_interval():
    values = np.random.default_rng(0).standard_normal(4000)
    mean, low, high = metrics.bootstrap_mean(values, np.random.default_rng(1), 2000)
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / np.sqrt(4000)
    assert (high - mean, mean - low) == pytest.approx((half, half), rel=0.1)


def test_bootstrap_mean_is_deterministic_and_exact_for_constants():
    values = np.full(50, 0.1)
    assert metrics.bootstrap_mean(values, np.random.default_rng(0), 10) == pytest.approx((0.1,) * 3)
    values = random_array((500, 1), density=0.5, rng=np.random.default_rng(0)).toarray()[:, 0]
    first, again = (metrics.bootstrap_mean(values, np.random.default_rng(3), 20) for _ in "ab")
    assert first == again


def test_bootstrap_means_resamples_the_same_customers_in_every_column():
    values = np.random.default_rng(0).random((300, 1)) @ np.array([[1.0, 2.0]])
    one, two = metrics.bootstrap_means(values, np.random.default_rng(0), 50)
    np.testing.assert_allclose(2 * one, two)


@settings(max_examples=20)
@given(st.sampled_from([np.empty(0), np.array([1.0, np.nan]), np.array([np.inf])]))
def test_bootstrap_mean_refuses_no_or_broken_values(values):
    with pytest.raises(ValueError, match="finite"):
        metrics.bootstrap_mean(values, np.random.default_rng(0))
