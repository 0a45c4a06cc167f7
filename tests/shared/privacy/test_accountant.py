import math
from dataclasses import replace
from fractions import Fraction

import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fondaco.shared import calibration
from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy import accountant
from fondaco.shared.privacy.events import PrivacyEvent

GOLDEN = [
    # noise multiplier, releases, PLD epsilon, RDP epsilon at delta = 1e-6
    (1, 10, 19.424, 20.552),
    (4, 100, 14.451, 15.328),
]


def _event(stddev, sens=2**20):
    return PrivacyEvent(
        kind="popularity",
        round_num=1,
        share_ppm=10**6,
        dim=1,
        sens_grid=sens,
        stddev_grid=stddev,
        silo_stddev_grid=stddev,
    )


@pytest.mark.parametrize(("multiplier", "n", "pld", "rdp"), GOLDEN)
def test_epsilon_matches_the_golden_table(multiplier, n, pld, rdp):
    joint = Fraction(multiplier / math.sqrt(n))  # n equal Gaussians are one of this multiplier
    assert abs(accountant.epsilon_pld((joint,), 1e-6) - pld) < 1e-3
    assert abs(accountant.epsilon_rdp((Fraction(multiplier),) * n, 1e-6) - rdp) < 1e-3


def test_pld_of_several_gaussians_is_that_of_their_joint_mu():
    several = accountant.epsilon_pld((Fraction(5), Fraction(5, 2), Fraction(10)), 1e-6)
    joint = 1 / Fraction(math.sqrt(1 / 25 + 4 / 25 + 1 / 100))
    assert math.isclose(several, accountant.epsilon_pld((joint,), 1e-6), rel_tol=1e-3)


@given(st.lists(st.fractions(2, 50), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_pld_never_exceeds_rdp(multipliers):
    several = tuple(multipliers)
    assert accountant.epsilon_pld(several, 1e-6) <= accountant.epsilon_rdp(several, 1e-6)


@given(st.floats(0.05, 4), st.sampled_from([1e-5, 1e-6, 1e-9]))
@settings(max_examples=15, deadline=None)
def test_gaussian_mu_is_where_the_exact_gaussian_meets_epsilon(epsilon, delta):
    mu = calibration.gaussian_mu(epsilon, delta)
    assert math.isclose(accountant.epsilon_pld((1 / Fraction(mu),), delta), epsilon, rel_tol=1e-3)


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 1e-6), (-1, 1e-6), (math.nan, 1e-6), (1, 0)])
def test_gaussian_mu_refuses_arguments_out_of_range(epsilon, delta):
    with pytest.raises(ConfigError):
        calibration.gaussian_mu(epsilon, delta)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
def test_calibrate_reaches_the_target_within_a_thousandth_and_never_exceeds_it(epsilon):
    def multipliers(mu):
        return tuple(Fraction(math.ceil(2**20 / (mu * part)), 2**20) for part in (0.6, 0.8))

    mu = calibration.calibrate(epsilon, 1e-6, multipliers)
    assert 0.999 * epsilon <= accountant.epsilon_pld(multipliers(mu), 1e-6) <= epsilon


def test_calibrate_gives_up_on_releases_that_cannot_be_made_cheaper():
    with pytest.raises(ConfigError, match="no noise found"):
        calibration.calibrate(0.1, 1e-6, lambda mu: (Fraction(1),))


@given(st.integers(2**18, 2**40), st.fractions(2, 60, max_denominator=10))
@settings(deadline=None)
def test_rdp_cost_is_the_exact_cost_rounded_up(stddev, order):
    cost = accountant.rdp_units(_event(stddev), order)
    exact = 10**9 * order * 2**40 / (2 * stddev**2)
    assert exact <= cost < exact + 1


@pytest.mark.parametrize("order", [Fraction(2), Fraction("8.2"), Fraction(21), Fraction(64)])
@pytest.mark.parametrize("stddev", [2**20, 3 * 2**20 + 1, 10**8])
def test_rdp_cost_equals_dp_accounting_rounded_up(stddev, order):
    event = _event(stddev)
    oracle = RdpAccountant([float(order)])
    oracle.compose(dp_event.GaussianDpEvent(float(event.noise_multiplier)))
    theirs = oracle._rdp[0] * 10**9
    assert theirs * (1 - 1e-12) <= accountant.rdp_units(event, order) <= theirs * (1 + 1e-12) + 1


def test_best_order_is_cheaper_than_its_neighbours():
    multipliers = [Fraction(2)] * 3
    best = float(calibration._best_order(multipliers, 1e-6))

    def epsilon(order):
        oracle = RdpAccountant([order])
        oracle.compose(dp_event.GaussianDpEvent(2.0), 3)
        return oracle.get_epsilon(1e-6)

    assert epsilon(best) <= min(epsilon(best - 0.5), epsilon(best + 0.5))


def test_filter_budget_is_the_sum_of_the_releases_costs(plan):
    order, budget = calibration.filter_budget(plan.releases, 1e-6)
    assert budget == sum(accountant.rdp_units(e, Fraction(order)) for e in plan.releases)


def test_event_describes_itself_to_dp_accounting():
    assert _event(2**21).as_dp_event() == dp_event.GaussianDpEvent(2.0)


@given(st.lists(st.sampled_from([0, 1]), max_size=30))
@settings(max_examples=50, deadline=None)
def test_filter_never_passes_a_release_set_that_rdp_would_refuse(plan, wishes):
    """Whatever is asked for, in any order and as often as one likes: epsilon stays the plan's."""
    order, left, passed = Fraction(plan.order), plan.budget_units, []
    for wish in wishes:
        cost = plan.cost(plan.releases[wish])
        if cost <= left:
            left -= cost
            passed.append(plan.releases[wish].noise_multiplier)
    if passed:
        oracle = RdpAccountant([float(order)])
        for multiplier in passed:
            oracle.compose(dp_event.GaussianDpEvent(float(multiplier)))
        assert oracle.get_epsilon(1e-6) <= plan.epsilons()["epsilon_rdp"] * (1 + 1e-7)
        assert sum(1 / m**2 for m in passed) <= sum(1 / m**2 for m in plan.multipliers) * (
            1 + Fraction(1, 10**7)
        )


def test_epsilon_falls_as_noise_grows(plan):
    event = plan.releases[1]
    more = replace(event, stddev_grid=event.stddev_grid * 2).noise_multiplier
    assert accountant.epsilon_pld((more,), 1e-6) < accountant.epsilon_pld(
        (event.noise_multiplier,), 1e-6
    )


@given(st.lists(st.fractions(2, 50), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_exact_gaussian_epsilon_agrees_with_pld(multipliers):
    exact, pld = (accountant.ACCOUNTANTS[n](tuple(multipliers), 1e-6) for n in ("gaussian", "pld"))
    assert exact <= pld + 1e-6
    assert abs(exact - pld) < 2e-3


def test_exact_gaussian_epsilon_inverts_its_mu():
    mu = calibration.gaussian_mu(4.0, 1e-5)
    assert abs(accountant.epsilon_gaussian((Fraction(1 / mu),), 1e-5) - 4.0) < 1e-6


@pytest.mark.parametrize("mu", [0.01, 0.3, 1, 3, 5, 8])
def test_exact_gaussian_epsilon_keeps_its_digits_at_any_size(mu):
    """At mu = 3 the naive tail told 18.16328, less than the truth."""
    epsilon = accountant.epsilon_gaussian((1 / Fraction(mu),), 1e-6)
    second = math.exp(epsilon + stats.norm.logcdf(-epsilon / mu - mu / 2))
    assert math.isclose(stats.norm.cdf(-epsilon / mu + mu / 2) - second, 1e-6, rel_tol=1e-9)
