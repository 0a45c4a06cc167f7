import math
from dataclasses import replace
from fractions import Fraction

import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from fondaco.shared import calibration
from fondaco.shared.calibration import Statistic
from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy import accountant
from fondaco.shared.privacy.events import EVERYBODY, Mechanism, PrivacyEvent

GOLDEN = [
    # noise multiplier, releases, PLD epsilon, RDP epsilon at delta = 1e-6
    (1, 10, 19.424, 20.552),
    (4, 100, 14.451, 15.328),
]
GOLDEN_SAMPLED = [
    # sampling, noise multiplier, steps, delta, PLD epsilon, RDP epsilon
    (0.01, 1.0, 1000, 1e-5, 1.829, 2.101),
    (0.05, 1.0, 500, 1e-5, 7.524, 8.302),
    (0.1, 1.5, 300, 1e-5, 6.291, 6.874),
    (0.25, 3.0, 200, 1e-5, 5.621, 6.099),
    (1.0, 10.0, 100, 1e-5, 4.377, 4.729),
    (1.0, 1.081, 1, 1e-5, 4.000, 4.324),
    (1.0, 0.6, 1, 1e-5, 8.001, 8.600),
    (0.001, 0.8, 10_000, 1e-5, 0.796, 1.384),
    (0.01, 1.0, 1000, 1e-9, 2.990, 3.408),
]
ORDERS = st.sampled_from(
    [Fraction(2), Fraction("3.7"), Fraction("8.2"), Fraction(21), Fraction(64)]
)
SAMPLED = st.builds(
    lambda multiplier, ppm, steps: Mechanism(Fraction(multiplier), ppm, steps),
    st.floats(0.6, 20),
    st.integers(1000, 400_000),
    st.integers(1, 200),
)
UNSAMPLED = st.builds(
    lambda multiplier, steps: Mechanism(Fraction(multiplier), EVERYBODY, steps),
    st.floats(2, 50),
    st.integers(1, 10),
)


def _event(stddev, sens=2**20, **changes):
    event = PrivacyEvent(
        kind="popularity",
        round_num=1,
        dim=1,
        sens_grid=sens,
        stddev_grid=stddev,
        silo_stddev_grid=stddev,
    )
    return replace(event, **changes)


def _gaussians(*multipliers):
    return tuple(Mechanism(Fraction(m)) for m in multipliers)


def _as_told_by_google(mechanism):
    noisy = dp_event.GaussianDpEvent(float(mechanism.multiplier))
    if mechanism.sampling_ppm != EVERYBODY:
        noisy = dp_event.PoissonSampledDpEvent(mechanism.sampling_ppm / EVERYBODY, noisy)
    return dp_event.SelfComposedDpEvent(noisy, mechanism.steps)


def _rdp(mechanism, order):
    """Google's RDP of `mechanism` at `order` [1e-9 RDP]."""
    oracle = RdpAccountant([float(order)])
    oracle.compose(_as_told_by_google(mechanism))
    return oracle._rdp[0] * 10**9


@pytest.mark.parametrize(("multiplier", "n", "pld", "rdp"), GOLDEN)
def test_epsilon_matches_the_golden_table(multiplier, n, pld, rdp):
    several = _gaussians(multiplier) * n
    assert abs(accountant.epsilon_pld(several, 1e-6) - pld) < 1e-3
    assert abs(accountant.epsilon_rdp(several, 1e-6) - rdp) < 1e-3


@pytest.mark.parametrize("row", GOLDEN_SAMPLED, ids=str)
def test_epsilon_of_samples_matches_the_golden_table(row):
    rate, multiplier, steps, delta, pld, rdp = row
    one = (Mechanism(Fraction(multiplier), round(rate * EVERYBODY), steps),)
    assert abs(accountant.epsilon_pld(one, delta) - pld) < 4e-3
    assert abs(accountant.epsilon_rdp(one, delta) - rdp) < 6e-3


@given(SAMPLED, st.sampled_from([1e-5, 1e-6]))
@settings(max_examples=15, deadline=None)
def test_pld_of_a_sample_equals_dp_accountings_own(mechanism, delta):
    oracle = PLDAccountant(value_discretization_interval=1e-3)
    oracle.compose(_as_told_by_google(mechanism))
    theirs = oracle.get_epsilon(delta)
    assert math.isclose(
        accountant.epsilon_pld((mechanism,), delta), theirs, rel_tol=1e-3, abs_tol=1e-3
    )


def test_pld_of_samples_and_everybody_equals_dp_accountings_own():
    several = (
        Mechanism(Fraction(2), 100_000, 20),
        Mechanism(Fraction(5)),
        Mechanism(Fraction(8), EVERYBODY, 3),
        Mechanism(Fraction(3), 250_000, 10),
    )
    oracle = PLDAccountant(value_discretization_interval=1e-4)
    for mechanism in several:
        oracle.compose(_as_told_by_google(mechanism))
    ours, theirs = accountant.epsilon_pld(several, 1e-6), oracle.get_epsilon(1e-6)
    assert theirs - 1e-4 <= ours < theirs + 5e-3


def test_pld_of_several_gaussians_is_that_of_their_joint_mu():
    several = accountant.epsilon_pld(_gaussians(5, Fraction(5, 2), 10), 1e-6)
    joint = 1 / math.sqrt(1 / 25 + 4 / 25 + 1 / 100)
    assert math.isclose(several, accountant.epsilon_pld(_gaussians(joint), 1e-6), rel_tol=1e-3)


@given(st.lists(UNSAMPLED, min_size=1, max_size=2))
@settings(max_examples=4, deadline=None)
def test_joined_gaussians_equal_their_separate_composition(several):
    oracle = PLDAccountant(value_discretization_interval=1e-4)
    for mechanism in several:
        oracle.compose(_as_told_by_google(mechanism))
    theirs = oracle.get_epsilon(1e-6)
    steps = sum(mechanism.steps for mechanism in several)
    assert theirs - 1e-4 * steps <= accountant.epsilon_pld(tuple(several), 1e-6) <= theirs + 1e-4


@given(SAMPLED, st.integers(2, 5))
@settings(max_examples=10, deadline=None)
def test_steps_are_counted_wherever_they_stand(mechanism, n):
    together = mechanism._replace(steps=mechanism.steps * n)
    apart, whole = (accountant.as_dp_event(m) for m in ((mechanism,) * n, (together,)))
    assert apart == whole


@given(st.lists(st.one_of(SAMPLED, UNSAMPLED), min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_pld_never_exceeds_rdp(several):
    pld, rdp = (
        told(tuple(several), 1e-6) for told in (accountant.epsilon_pld, accountant.epsilon_rdp)
    )
    assume(rdp > 0.3)  # below, PLD's discretisation by 1e-3 shows
    assert pld <= rdp + 1e-3


@given(SAMPLED)
@settings(max_examples=10, deadline=None)
def test_sampling_never_costs_more_than_everybody(mechanism):
    everybody = mechanism._replace(sampling_ppm=EVERYBODY)
    assert accountant.epsilon_rdp((mechanism,), 1e-6) <= accountant.epsilon_rdp((everybody,), 1e-6)
    assert accountant.rdp_units(mechanism, Fraction(8)) <= accountant.rdp_units(
        everybody, Fraction(8)
    )


@given(st.integers(2**18, 2**40), st.integers(1, 1000), st.fractions(2, 60, max_denominator=10))
@settings(deadline=None)
def test_rdp_cost_is_the_exact_cost_rounded_up(stddev, steps, order):
    cost = accountant.rdp_units(_event(stddev, steps=steps).joint, order)
    exact = 10**9 * order * steps * 2**40 / (2 * stddev**2)
    assert exact <= cost < exact + 1


@pytest.mark.parametrize("order", [Fraction(2), Fraction("8.2"), Fraction(21), Fraction(64)])
@pytest.mark.parametrize("stddev", [2**20, 3 * 2**20 + 1, 10**8])
def test_rdp_cost_equals_dp_accounting_rounded_up(stddev, order):
    mechanism = _event(stddev).joint
    theirs = _rdp(mechanism, order)
    cost = accountant.rdp_units(mechanism, order)
    assert theirs * (1 - 1e-12) <= cost <= theirs * (1 + 1e-12) + 1


@pytest.mark.parametrize("order", [Fraction(2), Fraction("8.2"), Fraction(64)])
@pytest.mark.parametrize("delta", [1e-5, 1e-9])
def test_epsilon_at_an_order_is_dp_accountings_own(order, delta):
    oracle = RdpAccountant([float(order)])
    oracle.compose(dp_event.GaussianDpEvent(0.5))
    units = accountant.rdp_units(*_gaussians(0.5), order)
    assert math.isclose(accountant.epsilon_at(units, order, delta), oracle.get_epsilon(delta))


def test_epsilon_at_an_order_is_never_below_zero():
    assert accountant.epsilon_at(0, Fraction(64), 0.5) == 0.0


@given(SAMPLED, ORDERS)
@settings(max_examples=100, deadline=None)
def test_rdp_cost_of_a_sample_is_dp_accountings_and_never_less(mechanism, order):
    theirs = _rdp(mechanism, order)
    assert theirs <= accountant.rdp_units(mechanism, order) <= theirs * (1 + 1e-6) + 2


@pytest.mark.parametrize("multiplier", [1, 1000, 10**5, 10**6])
@pytest.mark.parametrize("sampling_ppm", [1, 10, 1000, 10_000])
@pytest.mark.parametrize("order", [Fraction(2), Fraction(3), Fraction(21), Fraction(64)])
def test_every_release_costs_something_however_much_noise_it_carries(
    multiplier, sampling_ppm, order
):
    assert accountant.rdp_units(Mechanism(Fraction(multiplier), sampling_ppm), order) >= 1


@pytest.mark.parametrize("order", [Fraction("1.1"), Fraction("1.5")])
def test_order_at_which_a_sample_has_no_cost_is_refused(order):
    with pytest.raises(ConfigError, match="too small"):
        accountant.rdp_units(Mechanism(Fraction(10**6), EVERYBODY // 2), order)


def test_rdp_cost_of_a_sample_grows_with_its_steps_and_its_rate():
    costs = [
        accountant.rdp_units(Mechanism(Fraction(2), ppm, steps), Fraction(8))
        for ppm, steps in [(10_000, 1), (10_000, 2), (20_000, 2), (200_000, 2), (EVERYBODY, 2)]
    ]
    assert costs == sorted(costs)
    assert len(set(costs)) == 5


def test_event_tells_an_accountant_what_is_released_and_what_one_silo_adds():
    event = _event(2**21, silo_stddev_grid=2**20, sampling_ppm=1000, steps=7)
    assert event.joint == Mechanism(Fraction(2), 1000, 7)
    assert event.share == Mechanism(Fraction(1), 1000, 7)
    assert _event(2**21).joint == Mechanism(Fraction(2), EVERYBODY, 1)


def test_mechanisms_describe_themselves_to_dp_accounting():
    told = accountant.as_dp_event(
        [*_gaussians(2), Mechanism(Fraction(3), 500_000, 4), Mechanism(Fraction(3), 500_000, 6)]
    )
    sampled = dp_event.PoissonSampledDpEvent(0.5, dp_event.GaussianDpEvent(3.0))
    assert told == dp_event.ComposedDpEvent(
        [dp_event.GaussianDpEvent(2.0), dp_event.SelfComposedDpEvent(sampled, 10)]
    )


@pytest.fixture(scope="module")
def sampled_plan(make_plan):
    coins = Statistic(kind="gram", share=9, dim=10, sampling_ppm=300_000, steps=5)
    everybody = Statistic(kind="popularity", share=1, dim=5)
    return make_plan([everybody, coins], epsilon=2.0, trust="silo")


@pytest.mark.parametrize("name", ["plan", "sampled_plan"])
@given(wishes=st.lists(st.sampled_from([0, 1]), max_size=30))
@settings(max_examples=50, deadline=None)
def test_filter_never_passes_a_release_set_that_rdp_would_refuse(request, name, wishes):
    """Whatever is asked for, in any order and as often as one likes: epsilon stays the plan's."""
    plan = request.getfixturevalue(name)
    order, left, passed = Fraction(plan.order), plan.budget_units, []
    for wish in wishes:
        cost = plan.cost(plan.releases[wish])
        if cost <= left:
            left -= cost
            passed.append(plan.releases[wish].joint)
    if passed:
        oracle = RdpAccountant([float(order)])
        for mechanism in passed:
            oracle.compose(_as_told_by_google(mechanism))
        assert oracle.get_epsilon(1e-6) <= plan.epsilons()["epsilon_rdp"] * (1 + 1e-7)
        charged = sum(accountant.rdp_units(mechanism, order) for mechanism in passed)
        assert charged <= plan.budget_units


def test_filter_of_everybody_never_passes_more_mu_squared_than_planned(plan):
    first, second = plan.releases
    dearer = (plan.budget_units - plan.cost(second)) // plan.cost(first)
    assert dearer == 1
    assert plan.budget_units // plan.cost(first) * first.joint.multiplier**-2 <= sum(
        m.multiplier**-2 for m in plan.mechanisms
    ) * (1 + Fraction(1, 10**7))


def test_epsilon_falls_as_noise_grows(plan):
    event = plan.releases[1]
    more = replace(event, stddev_grid=event.stddev_grid * 2)
    assert accountant.epsilon_pld((more.joint,), 1e-6) < accountant.epsilon_pld(
        (event.joint,), 1e-6
    )


@given(st.lists(UNSAMPLED, min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_exact_gaussian_epsilon_agrees_with_pld(several):
    exact, pld = (
        told(tuple(several), 1e-6) for told in (accountant.epsilon_bound, accountant.epsilon_pld)
    )
    assert exact <= pld + 1e-6
    assert abs(exact - pld) < 2e-3


@given(SAMPLED)
@settings(max_examples=10, deadline=None)
def test_bound_of_samples_is_their_rdp(mechanism):
    several = (mechanism, *_gaussians(5))
    assert accountant.epsilon_bound(several, 1e-6) == accountant.epsilon_rdp(several, 1e-6)


def test_exact_gaussian_epsilon_inverts_its_mu():
    mu = calibration.gaussian_mu(4.0, 1e-5)
    assert abs(accountant.epsilon_bound(_gaussians(1 / mu), 1e-5) - 4.0) < 1e-6


@pytest.mark.parametrize("mu", [0.01, 0.3, 1, 3, 5, 8])
def test_exact_gaussian_epsilon_keeps_its_digits_at_any_size(mu):
    """At mu = 3 the naive tail told 18.16328, less than the truth."""
    epsilon = accountant.epsilon_bound(_gaussians(1 / mu), 1e-6)
    second = math.exp(epsilon + stats.norm.logcdf(-epsilon / mu - mu / 2))
    assert math.isclose(stats.norm.cdf(-epsilon / mu + mu / 2) - second, 1e-6, rel_tol=1e-9)
