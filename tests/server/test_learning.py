"""The learner: what it sends, and what it makes of what comes back."""

import numpy as np
import pytest

from fondaco.server.aggregation import OPTIMIZERS
from fondaco.server.checkpoint import RoundResult
from fondaco.server.learning import Learner
from fondaco.shared.calibration import Statistic
from fondaco.shared.models import MODELS, PublicFacts, Sizes
from fondaco.shared.models.autoencoder import AutoencoderTerms
from fondaco.shared.records import GlobalModel

ROUNDS = 4


def _terms(**changes):
    known = {"rounds": ROUNDS, "width": 2, "items": 3, "optimizer": "fedadam"}
    return AutoencoderTerms(**(known | changes))


N_PARAMETERS = MODELS["autoencoder"].n_parameters(_terms(), Sizes(n_items=5, head=4))


@pytest.fixture
def facts(catalogue):
    def zeros(*shape):
        return np.zeros(shape, dtype=np.float32)

    model = GlobalModel(
        plan_digest="sha256:plan",
        catalogue_digest=catalogue.digest,
        after_round=1,
        noisy_popularity=zeros(5),
        popularity=np.linspace(5, 1, 5, dtype=np.float32),
        head=np.arange(4),
        head_popularity=np.linspace(5, 2, 4, dtype=np.float32),
        gram_factors=zeros(4, 0),
        gram_diagonal=np.ones(4, dtype=np.float32),
        gram_top=np.ones(4, dtype=np.float32),
        kernel_weights=zeros(0),
        item_in=zeros(4, 1),
        item_out=zeros(5, 1),
        spectrum=zeros(4),
        noise_edge=np.array(1, dtype=np.float32),
        parameters=zeros(N_PARAMETERS),
        fusion=zeros(4, 2),
    )
    return PublicFacts(catalogue=catalogue, model=model)


@pytest.fixture
def make_learner(make_plan, facts):
    """Return a function: terms -> a learner of an autoencoder under a plan with those terms."""

    def make(terms, start=None, trust="aggregate"):
        step = Statistic(
            kind="autoencoder",
            share=1,
            dim=N_PARAMETERS,
            rounds=terms.rounds,
            sampling_ppm=round(terms.sampling_rate * 1e6),
            steps=terms.local_steps,
        )
        plan = make_plan(
            [("popularity", 1, 5), step],
            trust=trust,
            models={"autoencoder": terms.as_text()},
            public={"declared_users": "100"},
        )
        return Learner("autoencoder", plan, facts, start)

    return make


def _results(learner, seed=0, rounds=ROUNDS):
    grid = learner._plan.grid
    totals = np.random.default_rng(seed).normal(size=(rounds, N_PARAMETERS)) * 30 * grid
    return [
        RoundResult(
            kind="autoencoder",
            round_num=num + 2,
            total=np.rint(total).astype(np.int64),
            present=("north",),
            dropped=(),
        )
        for num, total in enumerate(totals)
    ]


def _constant(learner, value):
    """Results of which every number is `value` [clip norms]."""
    total = np.full(N_PARAMETERS, round(value * learner._plan.grid), dtype=np.int64)
    return [
        RoundResult(kind="autoencoder", round_num=num + 2, total=total, present=(), dropped=())
        for num in range(ROUNDS)
    ]


def _walk(learner, results):
    sent = []
    for result in results:
        sent.append(learner.parameters)
        learner.absorb(result)
    return sent


def test_learner_sends_the_models_own_beginning_first(make_learner, facts):
    terms = _terms()
    beginning = MODELS["autoencoder"].initial(terms, facts)
    learner = make_learner(terms)
    assert learner.parameters.dtype == np.float32
    assert np.array_equal(learner.parameters, beginning)
    assert np.array_equal(learner.final(), beginning)


def test_learner_starts_from_an_earlier_runs_parameters(make_learner):
    start = np.arange(N_PARAMETERS, dtype=np.float32)
    assert np.array_equal(make_learner(_terms(), start).parameters, start)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("trust", ["aggregate", "silo"])
def test_the_same_rounds_shown_again_give_byte_equal_parameters(make_learner, optimizer, trust):
    terms = _terms(optimizer=optimizer)
    first, again = (make_learner(terms, trust=trust) for _ in "ab")
    results = _results(first)
    one, other = _walk(first, results), _walk(again, results)
    assert [p.tobytes() for p in one] == [p.tobytes() for p in other]
    assert first.final().tobytes() == again.final().tobytes()


def test_a_summed_gradient_is_moved_against_and_divided_by_declared_customers(make_learner):
    """FedAvg at rate 0.5: one round of 20 clip norms over 100 customers moves by -0.1."""
    learner = make_learner(_terms(optimizer="fedavg", learning_rate=0.5))
    before = learner.parameters
    learner.absorb(_constant(learner, 20.0)[0])
    np.testing.assert_allclose(learner.parameters - before, -0.1, atol=1e-6)


def test_a_sampled_gradient_is_divided_by_the_customers_expected(make_learner):
    terms = _terms(optimizer="fedavg", learning_rate=0.5, sampling_rate=0.1)
    learner = make_learner(terms)
    before = learner.parameters
    learner.absorb(_constant(learner, 2.0)[0])
    np.testing.assert_allclose(learner.parameters - before, -0.1, atol=1e-6)


def test_a_silos_move_is_followed_as_far_as_it_went(make_learner):
    learner = make_learner(_terms(optimizer="fedavg", learning_rate=1.0), trust="silo")
    before = learner.parameters
    learner.absorb(_constant(learner, 0.25)[0])
    np.testing.assert_allclose(learner.parameters - before, 0.25, atol=1e-6)


@pytest.mark.parametrize(
    ("averaged", "late"), [(1.0, [1, 2, 3, 4]), (0.5, [3, 4]), (0.25, [4]), (1e-6, [])]
)
def test_parameters_of_the_late_rounds_are_averaged(make_learner, averaged, late):
    """Every round moves by -1, so after round r the parameters lie r below their start."""
    learner = make_learner(_terms(optimizer="fedavg", learning_rate=1.0, averaged=averaged))
    start = learner.parameters
    _walk(learner, _constant(learner, 100.0))
    expected = -np.mean(late) if late else -ROUNDS
    np.testing.assert_allclose(learner.final() - start, expected, atol=1e-6)


def test_averaging_never_changes_what_is_sent(make_learner):
    plain, averaging = (make_learner(_terms(averaged=share)) for share in (1e-6, 1.0))
    results = _results(plain)
    for one, other in zip(_walk(plain, results), _walk(averaging, results), strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(plain.final(), averaging.final())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_descent_reaches_the_minimum_of_a_quadratic(make_learner, optimizer):
    """Gradients p - 1 of 100 customers, a hundred rounds, no noise: p goes to 1."""
    rates = {"fedavg": 0.1, "fedavgm": 0.02}
    terms = _terms(
        optimizer=optimizer, learning_rate=rates.get(optimizer, 0.05), rounds=100, averaged=0.2
    )
    learner = make_learner(terms)
    for num in range(100):
        gradient = (learner.parameters.astype(np.float64) - 1.0) * 100 * learner._plan.grid
        total = np.rint(gradient).astype(np.int64)
        learner.absorb(
            RoundResult(kind="autoencoder", round_num=num + 2, total=total, present=(), dropped=())
        )
    np.testing.assert_allclose(learner.final(), 1.0, atol=0.05)
