"""Matrix factorisation on customers of two tastes, where what it must find is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.errors import ConfigError
from fondaco.shared.models import mf_als, mf_sgd
from fondaco.shared.models.base import Released, Sizes
from fondaco.shared.models.kernel_factors import head_facts, head_rows, log_popularity
from fondaco.shared.models.mf import LEAST_WIDTH, MOST_WIDTH, Mf, MfTerms, width_rule

MODEL = Mf()
N_ITEMS, N_USERS = 40, 600
KINDS = ["odd" if num % 2 else "even" for num in range(N_ITEMS)]
STDDEV = 0.05
"""So little noise that an error is the model's own."""


def _sales(seed=0, n_users=N_USERS):
    """(n_users, n_items) 0/1: half of them take odd items, half even ones."""
    rng = np.random.default_rng(seed)
    taste = rng.integers(2, size=(n_users, 1))
    chance = np.where(np.arange(N_ITEMS) % 2 == taste, 0.35, 0.02)
    return (rng.random((n_users, N_ITEMS)) < chance * np.linspace(1, 0.5, N_ITEMS)).astype(int)


def _popularity(taken):
    return (taken / np.sqrt(np.maximum(taken.sum(axis=1, keepdims=True), 1))).sum(axis=0)


def _terms(**changes):
    return MODEL.resolve(MfTerms(**changes), 1.0, N_USERS)


def _release(part, terms, rng, stddev=STDDEV):
    """What a round gives: customers clipped to norm 1 and added up, noise."""
    norms = np.sqrt(part.squared_norms())
    weights = 1.0 / np.maximum(norms, terms.clip_norm)
    total = np.einsum("u,uto,uti->oi", weights, part.deltas, part.inputs).ravel()
    return Released(total=total + rng.normal(0, stddev, total.shape), noise_stddev=stddev)


def _learn(terms, facts, timelines, *, start=None, stddev=STDDEV, seed=0):
    """The parameters after all rounds of `als`."""
    rng, released = np.random.default_rng(seed), []
    parameters = MODEL.initial(terms, facts) if start is None else start
    for _ in range(terms.rounds):
        part = MODEL.factors(terms, facts, parameters, timelines)[0]
        released.append(_release(part, terms, rng, stddev))
        parameters = MODEL.advance(terms, facts, parameters, released)
        assert parameters.dtype == np.float32
    return parameters


@pytest.fixture(scope="module")
def taken():
    return _sales()


@pytest.fixture(scope="module")
def timelines(taken, make_timelines):
    return make_timelines(taken)


@pytest.fixture(scope="module", params=["features", "no features"])
def facts(request, taken, make_facts):
    texts = KINDS if request.param == "features" else None
    return make_facts(_popularity(taken), 30, texts)


@pytest.fixture(scope="module")
def learned(facts, timelines):
    return _learn(_terms(), facts, timelines)


def _own_share(scores, taken, items):
    """Part of customers whose own taste is scored above the other, among `items` not taken."""
    taste = taken[:, 1::2].sum(axis=1) > taken[:, ::2].sum(axis=1)
    gap = []
    for row, mine, odd in zip(scores, taken, taste, strict=True):
        free = items[mine[items] == 0]
        own = free[free % 2 == odd]
        other = free[free % 2 != odd]
        gap.append(row[own].mean() > row[other].mean() if len(own) and len(other) else True)
    return np.mean(gap)


# terms


@given(mu=st.floats(1e-3, 10), users=st.integers(1, 10**7), more=st.floats(1, 10))
def test_width_grows_with_budget_and_customers_within_its_bounds(mu, users, more):
    assert LEAST_WIDTH <= width_rule(mu, users) <= width_rule(mu * more, users) <= MOST_WIDTH


def test_width_is_half_the_root_of_budget_times_customers():
    assert width_rule(0.9, 4500) == 32  # .5 sqrt(4050) = 31.8


@pytest.mark.parametrize(("solver", "rounds"), [("als", 2), ("sgd", 100)])
def test_resolve_fills_in_what_is_left_open(solver, rounds):
    terms = MODEL.resolve(MfTerms(solver=solver), 0.9, 4500)
    assert (terms.rounds, terms.width, terms.declared_users) == (rounds, 32, 4500)


def test_resolve_keeps_what_is_said():
    said = MfTerms(rounds=3, width=5, declared_users=7)
    assert MODEL.resolve(said, 0.9, 4500) == said


def test_unknown_solver_is_refused():
    with pytest.raises(ConfigError, match="solver='svd'"):
        MfTerms(solver="svd")


# als: what a customer releases


def test_every_customer_with_a_history_counts_for_exactly_one_bound(facts, timelines):
    terms = _terms()
    part = MODEL.factors(terms, facts, MODEL.initial(terms, facts), timelines)[0]
    told = head_rows(timelines, facts.model.head).any(axis=1)
    np.testing.assert_allclose(np.sqrt(part.squared_norms())[told], 1.0, atol=1e-12)
    assert not part.squared_norms()[~told].any()


def test_a_history_that_is_popularity_itself_adds_nothing(make_facts, make_timelines):
    """What is left of it is rounding, which must not be blown up to a whole bound."""
    facts = make_facts(np.ones(4), 4)
    part = MODEL.factors(
        _terms(), facts, MODEL.initial(_terms(), facts), make_timelines(np.ones((1, 4), dtype=int))
    )[0]
    assert not part.deltas.any()


def test_what_is_asked_is_orthonormal_and_beside_popularity(facts):
    known = head_facts(facts, 30)
    asked = mf_als.initial(known, 6).asked.astype(float)
    np.testing.assert_allclose(asked.T @ asked, np.eye(6), atol=1e-6)
    np.testing.assert_allclose(mf_als.mean_direction(known) @ asked, 0, atol=1e-6)


def test_release_is_the_sum_of_histories_times_customers_factors(facts, timelines):
    """The definition, written out for the first customers."""
    known = head_facts(facts, 30)
    asked = mf_als.initial(known, 5).asked
    rows = head_rows(timelines, known.head)[:20]
    part = mf_als.projections(known, asked, rows)
    mean = known.popularity / np.linalg.norm(known.popularity)
    for row, delta, factor in zip(rows.astype(float), part.deltas, part.inputs, strict=True):
        rest = row - mean * (mean @ row)
        whole = np.outer(rest, asked.T @ rest)
        np.testing.assert_allclose(
            np.outer(delta[0], factor[0]), whole / np.linalg.norm(whole), atol=1e-9
        )


# als: what the server makes of it


def test_shrinkage_drops_pure_noise():
    noise = np.random.default_rng(0).normal(size=(300, 20))
    assert not mf_als.shrunk_singular(noise * 0.95).any()


def test_shrinkage_keeps_what_is_far_above_the_noise():
    strong = np.outer(np.ones(300), np.ones(20)) * 1e3
    np.testing.assert_allclose(mf_als.shrunk_singular(strong), strong, rtol=1e-3)


def test_rest_of_clear_answers_is_the_matrix_itself():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(50, 3))
    matrix = factor @ factor.T
    questions = np.linalg.qr(np.hstack([factor, rng.normal(size=(50, 2))]))[0] * 1e6
    found = mf_als.symmetric_rest(questions, matrix @ questions)
    np.testing.assert_allclose(found, matrix, atol=1e-3)
    assert np.array_equal(found, found.T)


def test_two_nearly_equal_questions_do_not_blow_up_their_differences():
    """Answers on two scales, 3 % apart: what they differ by is no signal."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(50, 3))
    matrix = factor @ factor.T
    first = np.linalg.qr(factor)[0]
    second = np.linalg.qr(factor + 1e-2 * rng.normal(size=(50, 3)))[0]
    questions = np.hstack([first, second]) * 1e3
    answers = np.hstack([matrix @ first, 1.03 * matrix @ second]) * 1e3
    found = mf_als.symmetric_rest(questions, answers)
    assert np.linalg.norm(found - matrix) < 0.1 * np.linalg.norm(matrix)


def test_state_survives_its_vector():
    rng = np.random.default_rng(0)
    vector = rng.normal(size=mf_als.n_numbers(9, 4)).astype(np.float32)
    state = mf_als.State.of_vector(vector, 9, 4)
    assert (state.asked.shape, state.factors.shape, state.diagonal.shape) == ((9, 4), (9, 9), (9,))
    assert np.array_equal(state.as_vector(), vector)


def test_learned_factors_tell_tastes_apart(facts, taken, timelines, learned):
    scores = MODEL.scores(_terms(), facts, learned, timelines)
    assert _own_share(scores, taken, np.sort(facts.model.head)) > 0.95


def test_learned_gram_is_close_to_the_truth(facts, timelines, learned):
    known = head_facts(facts, 30)
    rows = head_rows(timelines, known.head).astype(float)
    truth = rows.T @ rows
    state = mf_als.State.of_vector(learned, 30, _terms().width)
    found = state.factors @ state.factors.T
    off = ~np.eye(30, dtype=bool)
    baseline = np.outer(known.popularity, known.popularity) / N_USERS
    assert np.linalg.norm((found - truth)[off]) < 0.5 * np.linalg.norm((baseline - truth)[off])


def test_items_outside_of_the_head_follow_their_features(make_facts, taken, timelines):
    facts = make_facts(_popularity(taken), 30, KINDS)
    learned = _learn(_terms(), facts, timelines)
    tail = np.setdiff1d(np.arange(N_ITEMS), facts.model.head)
    scores = MODEL.scores(_terms(), facts, learned, timelines)
    assert _own_share(scores, taken, tail) > 0.95


def test_second_question_is_found_again_from_the_first_answer(facts, timelines):
    """Not kept anywhere: it must come out equal, or answers are read with wrong questions."""
    terms, rng = _terms(), np.random.default_rng(0)
    first = MODEL.initial(terms, facts)
    released = [_release(MODEL.factors(terms, facts, first, timelines)[0], terms, rng)]
    second = MODEL.advance(terms, facts, first, released)
    released.append(_release(MODEL.factors(terms, facts, second, timelines)[0], terms, rng))
    learning = mf_als.Learning(
        known=head_facts(facts, 30),
        customers=float(N_USERS),
        sampling_rate=1.0,
        before=mf_als.State.of_vector(first, 30, terms.width),
    )
    asked = [mf_als.State.of_vector(v, 30, terms.width).asked for v in (first, second)]
    again = learning.next_asked(asked[1], released)  # goes through the first one
    assert np.isfinite(again).all()
    assert np.array_equal(learning.next_asked(asked[0], released[:1]), asked[1])
    assert np.array_equal(learning.first_asked(terms.width), asked[0])


def test_a_run_that_goes_on_makes_use_of_the_earlier_one(facts, timelines, learned):
    """New releases hold next to nothing but noise; tastes are still known."""
    terms = _terms()
    noisy = {"stddev": 15.0, "seed": 1}
    alone = _learn(terms, facts, timelines, **noisy)
    joined = _learn(terms, facts, timelines, start=learned, **noisy)
    truth = mf_als.State.of_vector(learned, 30, terms.width).factors
    target = truth @ truth.T
    errors = []
    for vector in (joined, alone):
        factors = mf_als.State.of_vector(vector, 30, terms.width).factors
        errors.append(np.linalg.norm(factors @ factors.T - target))
    assert errors[0] < errors[1]


def test_sampled_releases_lead_to_the_same_scale(make_facts, make_timelines):
    taken = _sales(n_users=4000)
    facts = make_facts(_popularity(taken), 30, KINDS)
    terms = replace(_terms(), declared_users=4000)
    whole = _learn(terms, facts, make_timelines(taken))
    half = _learn(replace(terms, sampling_rate=0.5), facts, make_timelines(taken[::2]))
    one, other = (
        mf_als.State.of_vector(v, 30, terms.width).factors.astype(float) for v in (whole, half)
    )
    assert np.trace(other @ other.T) == pytest.approx(np.trace(one @ one.T), rel=0.1)


def test_pure_noise_leaves_scores_finite(facts, timelines):
    parameters = _learn(_terms(), facts, timelines, stddev=1e6)
    assert np.isfinite(MODEL.scores(_terms(), facts, parameters, timelines)).all()


# sgd


def test_gradient_is_the_slope_of_the_likelihood(facts, timelines):
    """Customers' factors are inputs: they stay where they are while the items' move."""
    known = head_facts(facts, 30)
    rows = head_rows(timelines, known.head)[:3]
    items = mf_sgd.initial(known, 4).reshape(30, 4)
    users = mf_sgd.solved_users(known, items, rows).astype(float)
    bias = log_popularity(facts)[known.head].astype(float)

    def loss(items):
        chance = users @ items.T + bias
        chance -= np.log(np.exp(chance).sum(axis=1, keepdims=True))
        return -(rows.astype(float) ** 2 * chance).sum(axis=1)

    part = mf_sgd.gradients(facts, items, rows)
    step = np.random.default_rng(0).normal(size=items.shape)
    slope = (loss(items + 1e-5 * step) - loss(items - 1e-5 * step)) / 2e-5
    mine = np.einsum("uto,uti,oi->u", part.deltas, part.inputs, step)
    np.testing.assert_allclose(mine, slope, atol=1e-4)


def test_sgd_has_no_rule_of_its_own(facts):
    terms = _terms(solver="sgd")
    parameters = MODEL.initial(terms, facts)
    assert len(parameters) == MODEL.dim(terms, Sizes(n_items=N_ITEMS, head=30))
    released = [Released(total=np.zeros(len(parameters)), noise_stddev=1.0)]
    assert MODEL.advance(terms, facts, parameters, released) is None


def test_descent_tells_tastes_apart(facts, taken, timelines):
    terms = _terms(solver="sgd")
    parameters = MODEL.initial(terms, facts)
    rng = np.random.default_rng(0)
    for _ in range(60):
        part = MODEL.factors(terms, facts, parameters, timelines)[0]
        slope = _release(part, terms, rng).total
        parameters = (parameters - 0.05 * np.sign(slope)).astype(np.float32)
    scores = MODEL.scores(terms, facts, parameters, timelines)
    assert _own_share(scores, taken, np.sort(facts.model.head)) > 0.9


# corners


@pytest.mark.parametrize("solver", ["als", "sgd"])
def test_customers_without_a_history_get_popularity(solver, facts, make_timelines):
    terms = _terms(solver=solver)
    parameters = MODEL.initial(terms, facts)
    scores = MODEL.scores(terms, facts, parameters, make_timelines(np.zeros((2, N_ITEMS))))
    expected = np.argsort(-facts.model.popularity, kind="stable")
    assert np.argsort(-scores[1], kind="stable")[:20].tolist() == expected[:20].tolist()


@pytest.mark.parametrize("solver", ["als", "sgd"])
@pytest.mark.parametrize("texts", [None, ["red rug", "red lamp", "rug"]])
def test_the_smallest_head_and_a_single_customer_are_enough(
    solver, texts, make_facts, make_timelines
):
    facts = make_facts(np.array([3.0, 2.0, 1.0]), 2, texts)
    timelines = make_timelines(np.array([[1, 0, 1]]))
    terms = _terms(solver=solver)
    parameters = MODEL.initial(terms, facts)
    if solver == "als":
        parameters = _learn(terms, facts, timelines)
    assert len(parameters) == MODEL.n_parameters(terms, Sizes(n_items=3, head=2))
    assert MODEL.factors(terms, facts, parameters, timelines)[0].dim == 2
    assert np.isfinite(MODEL.scores(terms, facts, parameters, timelines)).all()
