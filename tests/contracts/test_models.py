"""Every model: what it promises about its terms, its sums and its scores."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fondaco.client.dataset import NO_ROWS, Fold, Rows, SiloDataset
from fondaco.client.training import Task, clipped_sum, computable
from fondaco.shared.calibration import Statistic
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.features import item_features
from fondaco.shared.models import MODELS, FactorModel, IterativeModel, NetworkModel, PublicFacts
from fondaco.shared.models.base import RoundTerms, Sizes, Timelines
from fondaco.shared.privacy.contribution import bound_contributions
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.records import GlobalModel
from fondaco.shared.vocabulary import Vocabulary

N_ITEMS, N_HEAD, NOW = 12, 8, 20_000.0
CLIP_NORM = 0.1
ITERATIVE = {name: model for name, model in MODELS.items() if isinstance(model, IterativeModel)}

each = pytest.mark.parametrize("name", MODELS)
each_iterative = pytest.mark.parametrize("name", ITERATIVE)
each_network = pytest.mark.parametrize(
    "name", [name for name in MODELS if isinstance(MODELS[name], NetworkModel)]
)

ROW = st.tuples(st.integers(0, N_ITEMS - 1), st.floats(0, NOW).map(round))
HISTORY = st.lists(ROW, max_size=12)
GIANT = [(num % N_ITEMS, NOW - 500 + num) for num in range(500)]
REPEATED = [(3, NOW - 9 + num) for num in range(9)]
ANCIENT = [(1, -40_000.0), (2, NOW)]
HARD = {"empty": [], "giant": GIANT, "repeated": REPEATED, "ancient": ANCIENT, "new": [(0, NOW)]}
few = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _timelines(histories):
    histories = [sorted(history, key=lambda row: row[1]) for history in histories]
    rows = np.array([row for history in histories for row in history], dtype=float).reshape(-1, 2)
    return Timelines(
        indptr=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        item_nums=rows[:, 0].astype(np.int64),
        times=rows[:, 1],
        now=NOW,
        n_items=N_ITEMS,
    )


CATALOGUE = Catalogue(
    items=Vocabulary(tuple(f"i{num:02d}" for num in range(N_ITEMS))),
    texts=tuple(f"{'odd' if num % 2 else 'even'} thing{num % 5}" for num in range(N_ITEMS)),
    categories=tuple(f"c{num % 3}" for num in range(N_ITEMS)),
    brands=("",) * N_ITEMS,
    prices=np.linspace(1, 9, N_ITEMS),
)
SIZES = Sizes(n_items=N_ITEMS, head=N_HEAD)


@pytest.fixture(scope="module")
def facts():
    """A global model of a popularity release and a Gram, before anything else is learned."""
    rng = np.random.default_rng(0)
    popularity = np.linspace(20, 0, N_ITEMS)
    floats = {
        "noisy_popularity": popularity + rng.normal(0, 1, N_ITEMS),
        "popularity": popularity,
        "head_popularity": popularity[:N_HEAD],
        "gram_factors": rng.normal(size=(N_HEAD, 2)),
        "gram_diagonal": np.full(N_HEAD, 3.0),
        "gram_top": np.full(N_HEAD, 2.0),
        "kernel_weights": np.full(len(item_features(CATALOGUE).blocks), 0.1),
        "item_in": rng.normal(size=(N_HEAD, 3)),
        "item_out": rng.normal(size=(N_ITEMS, 3)),
        "spectrum": np.linspace(9, -9, N_HEAD),
        "noise_edge": np.array(4.0),
        "parameters": np.zeros(0),
        "fusion": np.ones((4, 2)),
    }
    model = GlobalModel(
        plan_digest="sha256:plan",
        catalogue_digest=CATALOGUE.digest,
        after_round=2,
        head=np.random.default_rng(1).permutation(N_ITEMS)[:N_HEAD],
        **{name: values.astype(np.float32) for name, values in floats.items()},
    )
    for name in (field.name for field in fields(model)):
        if isinstance(getattr(model, name), np.ndarray):
            getattr(model, name).setflags(write=False)  # as the codec gives them
    return PublicFacts(catalogue=CATALOGUE, model=model)


def _terms(name):
    """Terms as they stand in a plan: whatever follows from public facts is settled."""
    terms = MODELS[name].terms()
    if name in ITERATIVE:
        terms = replace(terms, clip_norm=CLIP_NORM, rounds=2)
    return MODELS[name].resolve(terms, mu=1.0, declared_users=100)


def _parameters(name, facts, seed):
    """The model's own beginning, or somewhere else; where a model keeps its shape."""
    start = MODELS[name].initial(_terms(name), facts)
    noise = np.random.default_rng(seed).normal(size=len(start)) * 0.3 * (seed > 0)
    return (start + noise).astype(np.float32)


@pytest.fixture
def plan(make_plan, name):
    """A plan that releases the model."""
    model, terms = MODELS[name], _terms(name)
    rounds = terms.rounds if isinstance(terms, RoundTerms) else 1
    step = Statistic(kind=name, share=1, dim=model.dim(terms, SIZES), rounds=rounds)
    return make_plan(
        [("popularity", 1, N_ITEMS), step],
        models={name: terms.as_text()},
        public={"declared_users": "100", "headline": "ndcg@5", "repeats": "no"},
        catalogue_digest=CATALOGUE.digest,
        n_items=N_ITEMS,
        head=N_HEAD,
    )


def _dataset(timelines):
    users = np.repeat(np.arange(timelines.n_users), timelines.lengths)
    rows = Rows(user_nums=users, item_nums=timelines.item_nums, times=timelines.times)
    nobody = Fold(user_nums=np.empty(0, dtype=np.int64), history=NO_ROWS, targets=NO_ROWS)
    names = np.array([f"u{num}" for num in range(timelines.n_users)], dtype=np.str_)
    return SiloDataset(
        silo_id="north", user_ids=names, n_items=N_ITEMS, train=rows, valid=nobody, test=nobody
    )


def _sum(plan, name, facts, histories, *, parameters=None, users=None):
    """The clipped sum of these customers, exactly as a silo computes it before noise."""
    timelines = _timelines(histories)
    dataset = _dataset(timelines)
    sample = NoiseStream.seeded(0).sample(len(histories), 1_000_000)
    if users is not None:
        sample = replace(sample, user_nums=np.array(users, dtype=np.int64))
    rows = dataset.train
    task = Task(
        plan=plan,
        dataset=dataset,
        histories=bound_contributions(rows.user_nums, rows.item_nums, dataset.n_users, N_ITEMS),
        timelines=timelines,
        head=np.asarray(facts.model.head),
        facts=facts,
    )
    if parameters is None:
        parameters = np.empty(0, dtype=np.float32)
        if name in ITERATIVE:
            parameters = _parameters(name, facts, 1)
    return clipped_sum(task, name, parameters, sample)


# terms


# sums


@each
def test_silos_can_compute_what_a_plan_with_the_model_releases(plan):
    kinds = {event.kind for event in plan.releases}
    assert kinds <= computable(plan)


@each
@pytest.mark.parametrize("history", HARD.values(), ids=HARD.keys())
def test_one_customer_never_exceeds_the_bound(name, plan, facts, history):
    found = _sum(plan, name, facts, [history])
    assert found.values.dtype == np.int64
    assert found.sens_grid == plan.grid
    assert len(found.values) == MODELS[name].dim(_terms(name), SIZES)
    assert np.linalg.norm(found.values.astype(float)) <= found.sens_grid


@each
@few
@given(history=HISTORY, seed=st.integers(0, 3))
def test_no_customer_ever_exceeds_the_bound(name, plan, facts, history, seed):
    parameters = _parameters(name, facts, seed) if name in ITERATIVE else None
    found = _sum(plan, name, facts, [history], parameters=parameters)
    assert np.linalg.norm(found.values.astype(float)) <= found.sens_grid


@each
@few
@given(histories=st.lists(HISTORY, min_size=1, max_size=4))
@example(histories=[GIANT, [], REPEATED, ANCIENT])
def test_one_customer_more_moves_the_sum_by_no_more_than_the_bound(name, plan, facts, histories):
    joined = _sum(plan, name, facts, histories).values
    alone = _sum(plan, name, facts, histories[1:]).values
    assert np.linalg.norm((joined - alone).astype(float)) <= plan.grid


@each
def test_sum_of_nobody_is_zero(name, plan, facts):
    assert not _sum(plan, name, facts, []).values.any()


@each_iterative
def test_sum_of_an_empty_sample_is_zero(name, plan, facts):
    assert not _sum(plan, name, facts, list(HARD.values()), users=[]).values.any()


@each_iterative
def test_sum_is_that_of_the_sampled_alone(name, plan, facts):
    some = _sum(plan, name, facts, list(HARD.values()), users=[1, 3]).values
    apart = _sum(plan, name, facts, [GIANT, ANCIENT]).values
    np.testing.assert_allclose(some, apart, atol=plan.grid * 1e-5)


@each_iterative
def test_a_customer_does_move_the_sum(name, plan, facts):
    assert _sum(plan, name, facts, [[(0, NOW - 2), (1, NOW - 1), (2, NOW)]]).values.any()


def _factors(name, facts, timelines, seed=1):
    model, terms, parameters = MODELS[name], _terms(name), _parameters(name, facts, seed)
    if isinstance(model, FactorModel):
        return model.factors(terms, facts, parameters, timelines)
    from fondaco.client.dpsgd import factors  # noqa: PLC0415  (torch takes two seconds)
    from fondaco.shared.models.networks.base import load_parameters  # noqa: PLC0415

    network = model.network(terms, facts)
    load_parameters(network, parameters)
    return factors(network, network.encode(timelines))


def _rows(name, facts, histories):
    """(n_users, dim) what each customer would add, not clipped."""
    parts = _factors(name, facts, _timelines(histories))
    n_users = len(histories)
    wide = [np.einsum("uto,uti->uoi", p.deltas, p.inputs).reshape(n_users, -1) for p in parts]
    return np.concatenate(wide, axis=1)


@each_iterative
@few
@given(histories=st.lists(HISTORY, min_size=2, max_size=5), data=st.data())
@example(histories=list(HARD.values()), data=None)
def test_a_customers_part_depends_on_nobody_else(name, facts, histories, data):
    """Removing one customer leaves the others' gradients as they were."""
    gone = data.draw(st.integers(0, len(histories) - 1)) if data else 1
    everybody = _rows(name, facts, histories)
    rest = _rows(name, facts, histories[:gone] + histories[gone + 1 :])
    assert everybody.shape[1] == MODELS[name].dim(_terms(name), SIZES)
    np.testing.assert_allclose(np.delete(everybody, gone, axis=0), rest, atol=1e-5, rtol=1e-4)


@each_iterative
@few
@given(histories=st.lists(HISTORY, min_size=2, max_size=5), data=st.data())
def test_customers_may_come_in_any_order(name, facts, histories, data):
    order = data.draw(st.permutations(range(len(histories))))
    one = _rows(name, facts, histories)[list(order)]
    other = _rows(name, facts, [histories[num] for num in order])
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)


@each_network
def test_network_is_one_that_can_be_measured(name, facts):
    from fondaco.client.dpsgd import check_network  # noqa: PLC0415  (torch takes two seconds)

    network = MODELS[name].network(_terms(name), facts)
    check_network(network)
    count = sum(p.numel() for p in network.parameters())
    assert count == MODELS[name].n_parameters(_terms(name), SIZES)


@each_network
@few
@given(histories=st.lists(HISTORY, min_size=1, max_size=4))
@example(histories=list(HARD.values()))
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_networks_factors_equal_opacus_hooks(name, facts, histories):
    from fondaco.client.dpsgd import rows_by_hooks  # noqa: PLC0415
    from fondaco.shared.models.networks.base import load_parameters  # noqa: PLC0415

    network = MODELS[name].network(_terms(name), facts)
    load_parameters(network, _parameters(name, facts, 1))
    oracle = rows_by_hooks(network, network.encode(_timelines(histories)))
    wide = np.concatenate([part.deltas[:, 0] for part in oracle], axis=1)
    np.testing.assert_allclose(_rows(name, facts, histories), wide, atol=1e-6, rtol=1e-4)


# parameters and scores


@each
def test_lengths_follow_from_public_sizes(name):
    terms = _terms(name)
    for sizes in (SIZES, Sizes(n_items=2000, head=700)):
        assert MODELS[name].dim(terms, sizes) > 0
        assert MODELS[name].n_parameters(terms, sizes) >= 0


@each_iterative
def test_beginning_is_public_and_the_same_for_everybody(name, facts):
    first, again = (MODELS[name].initial(_terms(name), facts) for _ in "ab")
    assert first.dtype == np.float32
    assert first.shape == (MODELS[name].n_parameters(_terms(name), SIZES),)
    assert first.tobytes() == again.tobytes()
    assert np.isfinite(first).all()


@each_iterative
@few
@given(histories=st.lists(HISTORY, max_size=4), seed=st.integers(0, 3))
@example(histories=list(HARD.values()), seed=1)
@example(histories=[], seed=0)
def test_scores_are_numbers_or_nan_for_items_it_cannot_score(name, facts, histories, seed):
    parameters = _parameters(name, facts, seed)
    before = parameters.copy()
    found = MODELS[name].scores(_terms(name), facts, parameters, _timelines(histories))
    assert found.dtype == np.float32
    assert found.shape == (len(histories), N_ITEMS)
    assert not np.isinf(found).any()
    assert np.isfinite(found).any(axis=1).all()
    assert np.array_equal(parameters, before)


@each_iterative
def test_scores_of_a_customer_depend_on_nobody_else(name, facts):
    histories = list(HARD.values())
    parameters = _parameters(name, facts, 1)

    def scores(chosen):
        return MODELS[name].scores(_terms(name), facts, parameters, _timelines(chosen))

    together = scores(histories)
    apart = np.concatenate([scores([history]) for history in histories])
    np.testing.assert_allclose(together, apart, atol=1e-4, rtol=1e-4)


@each_iterative
def test_scores_of_many_customers_are_those_of_each(name, facts):
    """More than are scored at once."""
    histories = [[(num % N_ITEMS, NOW - num % 7)] for num in range(600)]
    parameters = _parameters(name, facts, 1)
    found = MODELS[name].scores(_terms(name), facts, parameters, _timelines(histories))
    few_of_them = [histories[num] for num in (0, 255, 256, 599)]
    expected = MODELS[name].scores(_terms(name), facts, parameters, _timelines(few_of_them))
    np.testing.assert_allclose(found[[0, 255, 256, 599]], expected, atol=1e-4, rtol=1e-4)
