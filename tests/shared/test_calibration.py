import math
from fractions import Fraction

import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from fondaco.shared import calibration
from fondaco.shared.calibration import Statistic, plan_releases
from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy import accountant
from fondaco.shared.privacy.events import EVERYBODY, Mechanism
from fondaco.shared.privacy.plan import Cohort

DELTA = 1e-6
COHORT = Cohort.default(10)


def _statistic(kind, share, **changes):
    return Statistic(kind=kind, share=share, dim=5, **changes)


def _releases(statistics, epsilon=1.0, **changes):
    return plan_releases(
        statistics,
        **{"target_delta": DELTA, "cohort": COHORT, "trust": "silo", **changes},
        epsilon=epsilon,
    )


def _epsilon(releases):
    return accountant.epsilon_pld(tuple(event.joint for event in releases), DELTA)


POPULARITY = _statistic("popularity", 1)
GRAM = _statistic("gram", 9)
STEPS = _statistic("mf", 5, rounds=3, sampling_ppm=200_000, steps=10)
COINS = _statistic("autoencoder", 4, rounds=20, sampling_ppm=100_000)
RARE = _statistic("sequence", 2, rounds=5, sampling_ppm=5_000, steps=40)
MIXES = {
    "everybody": [POPULARITY, GRAM],
    "one with steps": [POPULARITY, GRAM, STEPS],
    "coins alone": [COINS],
    "all": [POPULARITY, GRAM, STEPS, COINS],
}
RARE_MIXES = {
    "rare": [POPULARITY, RARE],
    "uneven": [_statistic("popularity", 1), _statistic("mf", 5000, rounds=4, sampling_ppm=50_000)],
}


@given(st.floats(0.05, 4), st.sampled_from([1e-5, 1e-6, 1e-9]))
@settings(max_examples=15, deadline=None)
def test_gaussian_mu_is_where_the_exact_gaussian_meets_epsilon(epsilon, delta):
    mu = calibration.gaussian_mu(epsilon, delta)
    found = accountant.epsilon_pld((Mechanism(1 / Fraction(mu)),), delta)
    assert math.isclose(found, epsilon, rel_tol=1e-3)


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 1e-6), (-1, 1e-6), (math.nan, 1e-6), (1, 0)])
def test_gaussian_mu_refuses_arguments_out_of_range(epsilon, delta):
    with pytest.raises(ConfigError):
        calibration.gaussian_mu(epsilon, delta)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
def test_calibrate_reaches_the_target_within_a_thousandth_and_never_exceeds_it(epsilon):
    def mechanisms(mu):
        return tuple(
            Mechanism(Fraction(math.ceil(2**20 / (mu * part)), 2**20)) for part in (0.6, 0.8)
        )

    mu = calibration.calibrate(epsilon, DELTA, mechanisms, calibration.gaussian_mu(epsilon, DELTA))
    assert 0.999 * epsilon <= accountant.epsilon_pld(mechanisms(mu), DELTA) <= epsilon


def test_calibrate_gives_up_on_releases_that_cannot_be_made_cheaper():
    with pytest.raises(ConfigError, match="no noise found"):
        calibration.calibrate(0.1, DELTA, lambda mu: (Mechanism(Fraction(1)),), 1.0)


@pytest.mark.parametrize("mix", ["rare", "uneven"])
def test_releases_of_rare_samples_cost_their_target_within_a_thousandth(mix):
    assert 0.999 <= _epsilon(_releases(RARE_MIXES[mix])) <= 1.0


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 8.0])
@pytest.mark.parametrize("mix", MIXES)
def test_releases_cost_their_target_within_a_thousandth_and_never_exceed_it(mix, epsilon):
    assert 0.999 * epsilon <= _epsilon(_releases(MIXES[mix], epsilon)) <= epsilon


@pytest.mark.parametrize("mix", ["everybody", "all"])
@pytest.mark.parametrize("gone", [0.2, 0.6, 0.9])
def test_releases_and_earlier_ones_cost_the_target_together(mix, gone):
    earlier = _releases([POPULARITY, STEPS], 2.0 * gone)
    releases = _releases(MIXES[mix], 2.0, earlier=earlier)
    assert 0.999 * 2.0 <= _epsilon((*earlier, *releases)) <= 2.0
    assert _epsilon(releases) < 2.0 * 0.99


@pytest.mark.parametrize("epsilon", [0.5, 0.9999, 1.0])
def test_earlier_releases_that_spent_everything_are_refused(epsilon):
    earlier = _releases([POPULARITY, GRAM], 1.0005)
    with pytest.raises(ConfigError, match="nothing is left"):
        _releases([GRAM], epsilon, earlier=earlier)


@pytest.mark.parametrize("share", [0, -1, math.nan])
def test_share_that_is_not_positive_is_refused(share):
    with pytest.raises(ConfigError, match="positive share"):
        _releases([_statistic("popularity", share), GRAM])


def test_releases_come_one_after_another_round_by_round():
    releases = _releases([POPULARITY, _statistic("mf", 3, rounds=2), GRAM])
    assert [(event.kind, event.round_num) for event in releases] == [
        ("popularity", 1),
        ("mf", 2),
        ("mf", 3),
        ("gram", 4),
    ]


def test_rounds_of_one_statistic_share_its_budget_evenly():
    first, second, third, _ = _releases([_statistic("mf", 3, rounds=3), GRAM])
    assert first.stddev_grid == second.stddev_grid == third.stddev_grid


def test_releases_carry_what_their_statistic_asked_for():
    (event,) = _releases([_statistic("mf", 1, sampling_ppm=250_000, steps=7)], 4.0)
    assert (event.dim, event.sampling_ppm, event.steps) == (5, 250_000, 7)
    assert event.silo_stddev_grid == event.stddev_grid


def test_releases_of_everybody_split_mu_squared_by_their_shares():
    first, second = (1 / event.noise_multiplier**2 for event in _releases([POPULARITY, GRAM]))
    assert math.isclose(first / (first + second), 0.1, rel_tol=1e-5)


def test_sampling_needs_less_noise_for_the_same_epsilon():
    coins, everybody = (
        _releases([_statistic("mf", 1, rounds=50, sampling_ppm=ppm)], 2.0)[0].stddev_grid
        for ppm in (100_000, EVERYBODY)
    )
    assert coins < 0.25 * everybody


def test_best_order_is_cheaper_than_its_neighbours():
    best = float(calibration._best_order([Mechanism(Fraction(2))] * 3, DELTA))

    def epsilon(order):
        oracle = RdpAccountant([order])
        oracle.compose(dp_event.GaussianDpEvent(2.0), 3)
        return oracle.get_epsilon(DELTA)

    assert epsilon(best) <= min(epsilon(best - 0.5), epsilon(best + 0.5))


@pytest.mark.parametrize("mix", MIXES)
def test_filter_budget_is_the_sum_of_the_releases_costs(mix):
    releases = _releases(MIXES[mix])
    order, budget = calibration.filter_budget(releases, DELTA)
    assert budget == sum(accountant.rdp_units(e.joint, Fraction(order)) for e in releases)


def test_customer_of_several_silos_pays_for_each(make_plan):
    for trust in ("silo", "aggregate"):
        plan = make_plan(trust=trust)
        epsilons = [calibration.epsilon_in_silos(plan, n) for n in (1, 2, 3)]
        assert epsilons[0] == pytest.approx(1.0, abs=2e-3)
        assert epsilons == sorted(epsilons)


def test_customer_of_two_silos_counts_on_no_sampling_in_a_shared_sum(make_plan):
    """Both silos' contributions of norm C add up, and either coin lets the customer in."""
    plan = make_plan([_statistic("popularity", 1, sampling_ppm=300_000)], epsilon=2.0)
    twice = Mechanism(plan.releases[0].noise_multiplier / 2)
    assert calibration.epsilon_in_silos(plan, 2) == accountant.epsilon_bound((twice,), DELTA)


def test_customer_of_two_silos_with_all_their_noise_takes_every_step_twice(make_plan):
    plan = make_plan([_statistic("popularity", 1, sampling_ppm=300_000, steps=3)], trust="silo")
    joint = plan.releases[0].joint
    assert calibration.epsilon_in_silos(plan, 2) == accountant.epsilon_bound(
        (joint._replace(steps=6),), DELTA
    )
