from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from fondaco.client.dataset import Fold, Rows, SiloDataset, as_timelines
from fondaco.client.serving import PARTS, fit_recommender
from fondaco.client.serving import recommender as recommender_module
from fondaco.client.serving.solve import LowRankEase, global_factor, own_factor
from fondaco.client.serving.tuning import (
    Judge,
)
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.config import FusionConfig
from fondaco.shared.errors import ConfigError
from fondaco.shared.features import item_features
from fondaco.shared.fusion import FUSERS
from fondaco.shared.models import PublicFacts, Sizes, Timelines
from fondaco.shared.models.autoencoder import AutoencoderTerms
from fondaco.shared.models.base import Terms
from fondaco.shared.models.gram import solve_ease
from fondaco.shared.models.published import GlobalParts, Published, activity_buckets, never_ranked
from fondaco.shared.models.terms import PlannedModels
from fondaco.shared.records import GlobalModel
from fondaco.shared.vocabulary import Vocabulary

N_ITEMS, N_HEAD = 24, 12
METRIC = "ndcg@5"
ALONE = FusionConfig()
CLOCK = FusionConfig(half_life_days=30.0)
DP_ONLY = FusionConfig(personal="dp-only")
KNOBS = {
    "own": ALONE,
    "clock": CLOCK,
    "dp-only": DP_ONLY,
    "no content": FusionConfig(content=False),
    "rank": FusionConfig(fuser="rank"),
    "stacked": FusionConfig(fuser="stacked", half_life_days=30.0),
}
each_way = pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS.keys())


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue(
        items=Vocabulary(tuple(f"i{num:02d}" for num in range(N_ITEMS))),
        texts=tuple(f"{'odd' if num % 2 else 'even'} thing{num % 5}" for num in range(N_ITEMS)),
        categories=tuple(f"c{num % 3}" for num in range(N_ITEMS)),
        brands=("",) * N_ITEMS,
        prices=np.linspace(1, 9, N_ITEMS),
    )


@pytest.fixture(scope="module")
def model(catalogue):
    """Everybody's model of two tastes, odd and even items, over a head of twelve."""
    rng = np.random.default_rng(0)
    head = np.arange(N_HEAD)
    taste = np.where(head % 2, 1.0, -1.0)
    popularity = np.linspace(20, 2, N_ITEMS)
    floats = {
        "noisy_popularity": popularity + rng.normal(0, 1, N_ITEMS),
        "popularity": popularity,
        "head_popularity": popularity[:N_HEAD],
        "gram_factors": np.column_stack([np.ones(N_HEAD), taste]) * 2.0,
        "gram_diagonal": np.full(N_HEAD, 3.0),
        "gram_top": np.full(N_HEAD, 2.0),
        "kernel_weights": np.full(len(item_features(catalogue).blocks), 0.1),
        "item_in": rng.normal(size=(N_HEAD, 3)),
        "item_out": rng.normal(size=(N_ITEMS, 3)),
        "spectrum": np.linspace(9, -9, N_HEAD),
        "noise_edge": np.array(4.0),
        "parameters": np.zeros(0),
        "fusion": np.tile([1.0, 0.0], (4, 1)),
    }
    return GlobalModel(
        plan_digest="sha256:plan",
        catalogue_digest=catalogue.digest,
        after_round=2,
        head=head,
        **{name: values.astype(np.float32) for name, values in floats.items()},
    )


def _rows(triples):
    table = np.array(triples, dtype=np.float64).reshape(-1, 3)
    return Rows(
        user_nums=table[:, 0].astype(np.int64),
        item_nums=table[:, 1].astype(np.int64),
        times=table[:, 2],
    ).sorted()


def _fold(history, targets):
    targets = _rows(targets)
    users = np.unique(targets.user_nums)
    known = _rows(history)
    return Fold(
        user_nums=users, history=known.take(np.isin(known.user_nums, users)), targets=targets
    )


def _dataset(n_users=12, seed=0):
    """Customers who buy odd or even items; the last has no history and buys item 23 first."""
    rng = np.random.default_rng(seed)
    train, valid, test = [], [], []
    for user in range(n_users):
        mine = rng.permutation(np.arange(user % 2, N_ITEMS, 2))[:8]
        times = np.sort(rng.uniform(0, 100, 4))
        train += [(user, item, time) for item, time in zip(mine[:4], times, strict=True)]
        valid += [(user, item, 110.0) for item in mine[4:6]]
        test += [(user, item, 120.0) for item in mine[6:]]
    test.append((n_users, N_ITEMS - 1, 121.0))
    return SiloDataset(
        silo_id="north",
        user_ids=np.array([f"u{num}" for num in range(n_users + 1)]),
        n_items=N_ITEMS,
        train=_rows(train),
        valid=_fold(train, valid),
        test=_fold(train + valid, test),
    )


NO_ROWS = _rows([])
NO_FOLD = _fold([], [])


def _parts(catalogue, model, **terms):
    """Everybody's model as it is scored: a Gram and whatever else has `terms`."""
    planned = PlannedModels(
        terms={"gram": Terms(), **terms}, sizes=Sizes(n_items=N_ITEMS, head=N_HEAD)
    )
    return GlobalParts(planned, PublicFacts(catalogue=catalogue, model=model))


def _fit(dataset, catalogue, model, knobs=ALONE, metric=METRIC):
    parts = None if model is None else _parts(catalogue, model)
    return fit_recommender(dataset, catalogue, parts, knobs, metric=metric, declared_users=1000)


def _explain(recommender, dataset):
    return recommender.score(dataset.test, dataset.known)


def _scores(recommender, dataset):
    return _explain(recommender, dataset).scores


# solving


def _low_rank_case(rank, seed=0):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(N_ITEMS, rank)).astype(np.float32)
    diagonal = rng.uniform(1, 3, N_ITEMS).astype(np.float32)
    history = csr_matrix((rng.random((6, N_ITEMS)) < 0.2) * rng.uniform(0.2, 1, (6, N_ITEMS)))
    return factor, diagonal, history


@pytest.mark.parametrize("rank", [0, 1, 7, 40])
def test_low_rank_ease_is_ease_of_the_whole_gram(rank):
    factor, diagonal, history = _low_rank_case(rank)
    gram = (factor @ factor.T + np.diag(diagonal)).astype(np.float64)
    weights, _ = solve_ease(gram, 0.0)
    found = LowRankEase(factor, diagonal).score(history)
    np.testing.assert_allclose(found, history @ weights, atol=2e-4)


def test_low_rank_ease_leaves_the_history_as_it_was():
    factor, diagonal, history = _low_rank_case(5)
    before = history.copy()
    LowRankEase(factor, diagonal).score(history)
    assert (history != before).nnz == 0


def test_own_factor_is_the_silos_exact_gram():
    train = csr_matrix(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    factor = own_factor(train)
    expected = [[0.5, 0.5, 0.0], [0.5, 1.5, 0.0], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(factor @ factor.T, expected, atol=1e-6)


def test_own_factor_of_many_customers_is_close_to_their_gram(monkeypatch):
    train = csr_matrix((np.random.default_rng(0).random((80, N_ITEMS)) < 0.2).astype(float))
    exact = own_factor(train)
    monkeypatch.setattr("fondaco.client.serving.solve.OWN_RANK", N_ITEMS)
    cut = own_factor(train)
    assert cut.shape == (N_ITEMS, N_ITEMS)
    np.testing.assert_allclose(cut @ cut.T, exact @ exact.T, atol=1e-4)


def test_global_factor_covers_the_whole_catalogue(model, catalogue):
    factor, diagonal = global_factor(model, catalogue)
    assert len(factor) == len(diagonal) == N_ITEMS
    gram = factor @ factor.T + np.diag(diagonal)
    assert np.isfinite(gram).all()
    assert np.linalg.eigvalsh(gram)[0] > -1e-3
    assert np.all(np.diag(gram) > 0)


# tuning


# recommending


@each_way
@pytest.mark.parametrize("joined", [False, True])
def test_parts_add_up_to_the_scores(catalogue, model, knobs, joined):
    dataset = _dataset()
    explained = _explain(_fit(dataset, catalogue, model if joined else None, knobs), dataset)
    assert set(explained.parts) == set(PARTS)
    np.testing.assert_allclose(sum(explained.parts.values()), explained.scores, atol=1e-5)
    assert joined or not explained.parts["global"].any()


def test_own_taste_is_learned(catalogue):
    dataset = _dataset(n_users=40)
    scores = _scores(_fit(dataset, catalogue, None, FusionConfig(content=False)), dataset)
    same = np.arange(N_ITEMS) % 2 == np.arange(40)[:, None] % 2
    unseen = ~(dataset.test.history_matrix(N_ITEMS).toarray()[:40] > 0)
    assert scores[:40][same & unseen].mean() > scores[:40][~same & unseen].mean() + 0.5


@each_way
def test_fitting_twice_gives_the_same_scores(catalogue, model, knobs):
    dataset = _dataset()
    first, again = (_scores(_fit(dataset, catalogue, model, knobs), dataset) for _ in "ab")
    assert np.array_equal(first, again)


@each_way
def test_cold_customers_and_cold_items_get_finite_scores(catalogue, model, knobs):
    dataset = _dataset()
    scores = _scores(_fit(dataset, catalogue, model, knobs), dataset)
    assert scores.shape == (13, N_ITEMS)
    assert np.isfinite(scores).all()


def test_customers_without_history_get_popular_items_first(catalogue, model):
    dataset = _dataset()
    cold = _scores(_fit(dataset, catalogue, model, DP_ONLY), dataset)[-1]
    assert np.corrcoef(cold, model.popularity)[0, 1] > 0.5


@pytest.mark.parametrize("knobs", [ALONE, CLOCK])
def test_customers_without_history_get_what_the_silo_sells(catalogue, knobs):
    dataset = _dataset()
    bought = np.bincount(dataset.train.item_nums, minlength=N_ITEMS)
    cold = _scores(_fit(dataset, catalogue, None, knobs), dataset)[-1]
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
    dataset = _dataset()
    known = FusionConfig(fuser=fuser)
    cold = _scores(_fit(dataset, catalogue, model if joined else None, known), dataset)[-1]
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
    dataset = replace(_dataset(), **changes)
    recommender = _fit(dataset, catalogue, model if joined else None, knobs)
    scores = _scores(recommender, dataset)
    assert scores.shape == (len(dataset.test.user_nums), N_ITEMS)
    assert np.isfinite(scores).all()


@each_way
@pytest.mark.parametrize("joined", [False, True])
def test_a_silo_of_one_customer_recommends(catalogue, model, knobs, joined):
    dataset = _dataset(n_users=1)
    recommender = _fit(dataset, catalogue, model if joined else None, knobs)
    assert np.isfinite(_scores(recommender, dataset)).all()


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
        found = _scores(_fit(nobody, catalogue, everybody, CLOCK), nobody)
        assert found.shape == (0, N_ITEMS)


def _with_items_permuted(rows):
    return replace(rows, item_nums=np.random.default_rng(3).permutation(N_ITEMS)[rows.item_nums])


@pytest.mark.parametrize("half_life_days", [0.0, 30.0])
@pytest.mark.parametrize("fuser", FUSERS)
def test_dp_only_never_reads_the_silos_own_statistics(catalogue, model, fuser, half_life_days):
    knobs = FusionConfig(personal="dp-only", fuser=fuser, half_life_days=half_life_days)
    dataset = _dataset()
    other = replace(dataset, train=_with_items_permuted(dataset.train))
    first, second = (
        _explain(_fit(silo, catalogue, model, knobs), silo) for silo in (dataset, other)
    )
    assert np.array_equal(first.scores, second.scores)
    assert not first.parts["own"].any()


def test_own_statistics_do_matter_otherwise(catalogue, model):
    dataset = _dataset()
    other = replace(dataset, train=_with_items_permuted(dataset.train))
    first, second = (_scores(_fit(d, catalogue, model), d) for d in (dataset, other))
    assert not np.allclose(first, second)


def test_without_content_no_item_facts_take_part(catalogue, model):
    dataset = _dataset()
    knobs = FusionConfig(content=False)
    parts = _explain(_fit(dataset, catalogue, None, knobs), dataset).parts
    bare = replace(catalogue, texts=("",) * N_ITEMS, categories=("",) * N_ITEMS)
    same = _explain(_fit(dataset, bare, None, knobs), dataset).parts
    assert not parts["content"].any()
    assert np.array_equal(parts["own"], same["own"])


@each_way
def test_test_rows_never_change_the_fit(catalogue, model, knobs):
    dataset = _dataset()
    others = replace(dataset.test, targets=_with_items_permuted(dataset.test.targets))
    fitted = [
        _fit(replace(dataset, test=fold), catalogue, model, knobs)
        for fold in (dataset.test, others, NO_FOLD)
    ]
    first, *rest = [(r.mix, _scores(r, dataset).tolist()) for r in fitted]
    assert all(other == first for other in rest)


def test_targets_never_change_the_scores(catalogue, model):
    dataset = _dataset()
    recommender = _fit(dataset, catalogue, model, CLOCK)
    others = replace(dataset.test, targets=_with_items_permuted(dataset.test.targets))
    first, second = (_scores(recommender, replace(dataset, test=f)) for f in (dataset.test, others))
    assert np.array_equal(first, second)


def test_a_model_that_misleads_is_hardly_trusted(catalogue, model):
    """Joining can be turned down: everybody's taste is the opposite of this silo's."""
    dataset = _dataset(n_users=60)
    popularity = np.linspace(1, 50, N_ITEMS).astype(np.float32)
    taste = np.where(np.arange(N_HEAD) < N_HEAD // 2, 1.0, -1.0).astype(np.float32)
    wrong = replace(
        model,
        popularity=popularity,
        gram_factors=np.column_stack([model.gram_top, 6 * taste]).astype(np.float32),
    )
    recommender = _fit(dataset, catalogue, wrong)
    judge = Judge(
        dataset.test.history_matrix(N_ITEMS).toarray() > 0,
        dataset.test.target_matrix(N_ITEMS).toarray() > 0,
        5,
    )
    joined = judge(_scores(recommender, dataset)).mean()
    alone = judge(_scores(_fit(dataset, catalogue, None), dataset)).mean()
    assert joined > alone - 0.05


def test_an_unknown_metric_is_refused(catalogue):
    with pytest.raises(ConfigError, match="mrr"):
        _fit(_dataset(), catalogue, None, metric="mrr@5")


# everybody's model beside its Gram


WITH_NETWORK = {"autoencoder": AutoencoderTerms(width=3, items=N_HEAD)}


def _with_network(model, fusion, seed=0):
    """A model with an autoencoder of three hidden units and these fusion weights."""
    parameters = np.random.default_rng(seed).normal(size=(2 * N_HEAD + 1) * 3)
    return replace(
        model,
        parameters=parameters.astype(np.float32),
        fusion=np.broadcast_to(np.asarray(fusion, dtype=np.float32), (4, 3)),
    )


def _asked(dataset):
    users = dataset.test.user_nums
    return as_timelines(dataset, users, dataset.test.history, np.inf)


def test_parts_are_the_gram_the_networks_and_popularity(catalogue, model):
    parts = _parts(catalogue, _with_network(model, [1, 0, 0]), **WITH_NETWORK)
    asked = _asked(_dataset())
    assert parts.names == ("gram", "autoencoder", "popularity")
    scores = {name: parts.score(name, asked) for name in parts.names}
    assert all(plane.shape == (13, N_ITEMS) for plane in scores.values())
    assert np.array_equal(scores["gram"], Published(model).score(asked.incidence()))
    order = np.argsort(-model.popularity)
    assert np.array_equal(np.argsort(-scores["popularity"][0], kind="stable"), order)


def test_fused_is_the_reference_where_nothing_else_has_a_weight(catalogue, model):
    parts = _parts(catalogue, _with_network(model, [1, 0, 0]), **WITH_NETWORK)
    asked = _asked(_dataset())
    mask = never_ranked(asked, repeats=False)
    reference = FUSERS["weighted"].prepare(parts.score("gram", asked), mask)
    assert np.array_equal(parts.fused(asked, mask), reference)
    assert parts.beside_reference(asked, mask) is None


def test_fused_follows_the_weights_of_a_customers_bucket(catalogue, model):
    """Only customers of at least five items are told by the network; the last has none."""
    fusion = np.array([[1, 0, 0], [1, 0.6, 0], [1, 0, 0], [1, 0, 0]], dtype=np.float32)
    parts = _parts(catalogue, _with_network(model, fusion), **WITH_NETWORK)
    asked = _asked(_dataset())
    mask = never_ranked(asked, repeats=False)
    buckets = activity_buckets(asked)
    assert buckets.tolist() == [1] * 12 + [0]
    gram, network = (
        FUSERS["weighted"].prepare(parts.score(name, asked), mask) for name in parts.names[:2]
    )
    expected = gram + np.where(buckets[:, None] == 1, np.float32(0.6), 0) * network
    np.testing.assert_allclose(parts.fused(asked, mask), expected, atol=1e-6)
    assert not parts.beside_reference(asked, mask)[-1].any()


@pytest.mark.parametrize(("n_items", "bucket"), [(0, 0), (4, 0), (5, 1), (19, 1), (20, 2), (60, 3)])
def test_buckets_count_distinct_items(n_items, bucket):
    asked = Timelines(
        indptr=np.array([0, 2 * n_items]),
        item_nums=np.tile(np.arange(n_items), 2),
        times=np.zeros(2 * n_items),
        now=0.0,
        n_items=100,
    )
    assert activity_buckets(asked).tolist() == [bucket]


@pytest.mark.parametrize("repeats", [False, True])
def test_what_the_silo_does_not_sell_is_never_ranked(repeats):
    sold = np.arange(6) < 4
    asked = Timelines(
        indptr=np.array([0, 2, 2]),
        item_nums=np.array([1, 3]),
        times=np.zeros(2),
        now=0.0,
        n_items=6,
        assortment=sold,
    )
    masked = never_ranked(asked, repeats=repeats)
    had = [] if repeats else [1, 3]
    assert np.flatnonzero(masked[0]).tolist() == sorted([*had, 4, 5])
    assert np.flatnonzero(masked[1]).tolist() == [4, 5]


@each_way
def test_a_network_with_a_weight_takes_part_at_home(catalogue, model, knobs):
    """And one without a weight changes nothing, whatever it says."""
    dataset = _dataset()

    def fitted(fusion, seed):
        parts = _parts(catalogue, _with_network(model, fusion, seed), **WITH_NETWORK)
        return fit_recommender(dataset, catalogue, parts, knobs, metric=METRIC, declared_users=1000)

    silent, other = (_scores(fitted([1, 0, 0], seed), dataset) for seed in (0, 1))
    assert np.array_equal(silent, other)
    assert np.array_equal(silent, _scores(_fit(dataset, catalogue, model, knobs), dataset))
    heard = fitted([1, 0.6, 0], 0)
    assert "global networks" in heard.mix
    assert np.isfinite(_scores(heard, dataset)).all()


def test_without_a_gram_the_fused_model_is_the_base(catalogue, model):
    """No Gram, hence no EASE over both: what everybody's model says stands for itself."""
    bare = replace(_with_network(model, [1, 0, 0]), gram_factors=np.zeros((N_HEAD, 0), np.float32))
    bare = replace(bare, fusion=bare.fusion[:, :2])
    planned = PlannedModels(terms=WITH_NETWORK, sizes=Sizes(n_items=N_ITEMS, head=N_HEAD))
    parts = GlobalParts(planned, PublicFacts(catalogue=catalogue, model=bare))
    dataset = _dataset()
    assert not parts.has_gram
    recommender = fit_recommender(
        dataset, catalogue, parts, DP_ONLY, metric=METRIC, declared_users=1000
    )
    assert recommender.mix["global"] > 0
    assert np.isfinite(_scores(recommender, dataset)).all()
