"""What a silo recommends to its customers, alone and with everybody's model."""

from dataclasses import replace

import numpy as np
import pytest
from serving_silos import (
    ALONE,
    CLOCK,
    DP_ONLY,
    N_HEAD,
    N_ITEMS,
    NO_FOLD,
    NO_ROWS,
    each_way,
    explain,
    fit,
    make_silo,
    scores_of,
)

from fondaco.client.dataset import SiloDataset
from fondaco.client.serving import PARTS
from fondaco.client.serving import recommender as recommender_module
from fondaco.client.serving.tuning import (
    Judge,
)
from fondaco.shared.config import FusionConfig
from fondaco.shared.errors import ConfigError
from fondaco.shared.fusion import FUSERS


@each_way
@pytest.mark.parametrize("joined", [False, True])
def test_parts_add_up_to_the_scores(catalogue, model, knobs, joined):
    dataset = make_silo()
    explained = explain(fit(dataset, catalogue, model if joined else None, knobs), dataset)
    assert set(explained.parts) == set(PARTS)
    np.testing.assert_allclose(sum(explained.parts.values()), explained.scores, atol=1e-5)
    assert joined or not explained.parts["global"].any()


def test_own_taste_is_learned(catalogue):
    dataset = make_silo(n_users=40)
    scores = scores_of(fit(dataset, catalogue, None, FusionConfig(content=False)), dataset)
    same = np.arange(N_ITEMS) % 2 == np.arange(40)[:, None] % 2
    unseen = ~(dataset.test.history_matrix(N_ITEMS).toarray()[:40] > 0)
    assert scores[:40][same & unseen].mean() > scores[:40][~same & unseen].mean() + 0.5


@each_way
def test_fitting_twice_gives_the_same_scores(catalogue, model, knobs):
    dataset = make_silo()
    first, again = (scores_of(fit(dataset, catalogue, model, knobs), dataset) for _ in "ab")
    assert np.array_equal(first, again)


@each_way
def test_cold_customers_and_cold_items_get_finite_scores(catalogue, model, knobs):
    dataset = make_silo()
    scores = scores_of(fit(dataset, catalogue, model, knobs), dataset)
    assert scores.shape == (13, N_ITEMS)
    assert np.isfinite(scores).all()


def test_customers_without_history_get_popular_items_first(catalogue, model):
    dataset = make_silo()
    cold = scores_of(fit(dataset, catalogue, model, DP_ONLY), dataset)[-1]
    assert np.corrcoef(cold, model.popularity)[0, 1] > 0.5


@pytest.mark.parametrize("knobs", [ALONE, CLOCK])
def test_customers_without_history_get_what_the_silo_sells(catalogue, knobs):
    dataset = make_silo()
    bought = np.bincount(dataset.train.item_nums, minlength=N_ITEMS)
    cold = scores_of(fit(dataset, catalogue, None, knobs), dataset)[-1]
    assert np.corrcoef(cold, bought)[0, 1] > 0.5


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("fuser", FUSERS)
def test_cold_customers_are_ranked_by_popularity_though_it_helps_nobody_else(
    catalogue, model, fuser, joined, monkeypatch
):
    """Whatever tuning says of the sides, even that all of them are worthless."""

    def none(planes, *rest):
        return np.array([1.0] + [0.0] * (len(planes) - 1))

    monkeypatch.setattr(recommender_module, "fit_listwise", none)
    monkeypatch.setattr(recommender_module, "tune_sides", lambda _, sides, *r: np.zeros(len(sides)))
    dataset = make_silo()
    known = FusionConfig(fuser=fuser)
    cold = scores_of(fit(dataset, catalogue, model if joined else None, known), dataset)[-1]
    bought = np.bincount(dataset.train.item_nums, minlength=N_ITEMS)
    popular = np.column_stack([np.log(bought + 1.0), model.popularity * joined, np.ones(N_ITEMS)])
    explained = popular @ np.linalg.lstsq(popular, cold, rcond=None)[0]
    assert cold.std() > 0.1
    assert np.corrcoef(explained, cold)[0, 1] > 0.8


@each_way
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"valid": NO_FOLD},
        {"train": NO_ROWS},
        {"train": NO_ROWS, "valid": NO_FOLD},
        {"train": NO_ROWS, "valid": NO_FOLD, "test": NO_FOLD},
    ],
    ids=["no validation", "no training", "test only", "nothing"],
)
def test_a_silo_that_lacks_rows_still_recommends(catalogue, model, knobs, joined, changes):
    dataset = replace(make_silo(), **changes)
    recommender = fit(dataset, catalogue, model if joined else None, knobs)
    scores = scores_of(recommender, dataset)
    assert scores.shape == (len(dataset.test.user_nums), N_ITEMS)
    assert np.isfinite(scores).all()


@each_way
@pytest.mark.parametrize("joined", [False, True])
def test_a_silo_of_one_customer_recommends(catalogue, model, knobs, joined):
    dataset = make_silo(n_users=1)
    recommender = fit(dataset, catalogue, model if joined else None, knobs)
    assert np.isfinite(scores_of(recommender, dataset)).all()


def test_a_silo_without_customers_recommends_to_nobody(catalogue, model):
    nobody = SiloDataset(
        silo_id="empty",
        user_ids=np.empty(0, dtype=np.str_),
        n_items=N_ITEMS,
        train=NO_ROWS,
        valid=NO_FOLD,
        test=NO_FOLD,
    )
    for everybody in (None, model):
        found = scores_of(fit(nobody, catalogue, everybody, CLOCK), nobody)
        assert found.shape == (0, N_ITEMS)


def _with_items_permuted(rows):
    return replace(rows, item_nums=np.random.default_rng(3).permutation(N_ITEMS)[rows.item_nums])


@pytest.mark.parametrize("half_life_days", [0.0, 30.0])
@pytest.mark.parametrize("fuser", FUSERS)
def test_dp_only_never_reads_the_silos_own_statistics(catalogue, model, fuser, half_life_days):
    knobs = FusionConfig(personal="dp-only", fuser=fuser, half_life_days=half_life_days)
    dataset = make_silo()
    other = replace(dataset, train=_with_items_permuted(dataset.train))
    first, second = (explain(fit(silo, catalogue, model, knobs), silo) for silo in (dataset, other))
    assert np.array_equal(first.scores, second.scores)
    assert not first.parts["own"].any()


def test_own_statistics_do_matter_otherwise(catalogue, model):
    dataset = make_silo()
    other = replace(dataset, train=_with_items_permuted(dataset.train))
    first, second = (scores_of(fit(d, catalogue, model), d) for d in (dataset, other))
    assert not np.allclose(first, second)


def test_without_content_no_item_facts_take_part(catalogue, model):
    dataset = make_silo()
    knobs = FusionConfig(content=False)
    parts = explain(fit(dataset, catalogue, None, knobs), dataset).parts
    bare = replace(catalogue, texts=("",) * N_ITEMS, categories=("",) * N_ITEMS)
    same = explain(fit(dataset, bare, None, knobs), dataset).parts
    assert not parts["content"].any()
    assert np.array_equal(parts["own"], same["own"])


@each_way
def test_test_rows_never_change_the_fit(catalogue, model, knobs):
    dataset = make_silo()
    others = replace(dataset.test, targets=_with_items_permuted(dataset.test.targets))
    fitted = [
        fit(replace(dataset, test=fold), catalogue, model, knobs)
        for fold in (dataset.test, others, NO_FOLD)
    ]
    first, *rest = [(r.mix, scores_of(r, dataset).tolist()) for r in fitted]
    assert all(other == first for other in rest)


def test_targets_never_change_the_scores(catalogue, model):
    dataset = make_silo()
    recommender = fit(dataset, catalogue, model, CLOCK)
    others = replace(dataset.test, targets=_with_items_permuted(dataset.test.targets))
    first, second = (
        scores_of(recommender, replace(dataset, test=f)) for f in (dataset.test, others)
    )
    assert np.array_equal(first, second)


def test_a_model_that_misleads_is_hardly_trusted(catalogue, model):
    """Joining can be turned down: everybody's taste is the opposite of this silo's."""
    dataset = make_silo(n_users=60)
    popularity = np.linspace(1, 50, N_ITEMS).astype(np.float32)
    taste = np.where(np.arange(N_HEAD) < N_HEAD // 2, 1.0, -1.0).astype(np.float32)
    wrong = replace(
        model,
        popularity=popularity,
        gram_factors=np.column_stack([model.gram_top, 6 * taste]).astype(np.float32),
    )
    recommender = fit(dataset, catalogue, wrong)
    judge = Judge(
        dataset.test.history_matrix(N_ITEMS).toarray() > 0,
        dataset.test.target_matrix(N_ITEMS).toarray() > 0,
        5,
    )
    joined = judge(scores_of(recommender, dataset)).mean()
    alone = judge(scores_of(fit(dataset, catalogue, None), dataset)).mean()
    assert joined > alone - 0.05


def test_an_unknown_metric_is_refused(catalogue):
    with pytest.raises(ConfigError, match="mrr"):
        fit(make_silo(), catalogue, None, metric="mrr@5")
