"""The plan's account behind Flower's interface, held against Flower's own types."""

import inspect
import json
from dataclasses import replace
from fractions import Fraction

import pytest
from flwr.serverapp import (
    GaussianPrivacyEvent,
    PrivacyAccountant,
    PrivacyConfig,
    RdpAccountant,
    SamplingMethod,
)
from flwr.serverapp.exception import PrivacyBudgetExhausted
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from fondaco.server.flower_accounting import PlanAccountant, flower_accountant
from fondaco.shared.calibration import Statistic
from fondaco.shared.errors import BudgetError, ConfigError, PrivacyError, RefusalError
from fondaco.shared.privacy.accountant import epsilon_at

SAMPLED = (
    Statistic(kind="popularity", share=1, dim=5),
    Statistic(kind="mf", share=9, dim=7, rounds=4, sampling_ppm=200_000, steps=3),
)
DELTA = 1e-6


@pytest.fixture(scope="module")
def sampled_plan(make_plan):
    return make_plan(SAMPLED, trust="silo", epsilon=2.0)


@pytest.fixture(scope="module", params=["unsampled", "sampled"])
def any_plan(request, plan, sampled_plan):
    return {"unsampled": plan, "sampled": sampled_plan}[request.param]


def compose_all(accountant, plan):
    for release in plan.releases:
        one = accountant.composition_of(release.kind, release.round_num)
        accountant.compose(one.event, one.times)
    return accountant


def composed(plan):
    return compose_all(PlanAccountant(plan), plan)


def one_release(accountant, kind="popularity", round_num=1):
    return accountant.composition_of(kind, round_num).event


def test_it_has_every_member_of_flowers_protocol(plan):
    ours = flower_accountant(plan)
    for name, member in vars(PrivacyAccountant).items():
        if name.startswith("_"):
            continue
        assert hasattr(ours, name)
        if inspect.isfunction(member):
            wanted = inspect.signature(member).parameters
            assert list(inspect.signature(getattr(PlanAccountant, name)).parameters) == list(wanted)


def test_flowers_own_configuration_describes_the_plan(plan, sampled_plan):
    config = PlanAccountant(plan).config
    assert isinstance(config, PrivacyConfig)
    assert (config.target_delta, config.max_epsilon) == (DELTA, 1.0)
    assert config.neighboring_relation.value == plan.adjacency
    assert config.sampling_method is SamplingMethod.NO_AMPLIFICATION
    assert PlanAccountant(sampled_plan).config.sampling_method is SamplingMethod.POISSON


def test_whole_plan_costs_its_certificate(any_plan):
    spent = composed(any_plan).get_privacy_spent()
    assert spent.epsilon == any_plan.epsilons()["epsilon"]
    assert (spent.delta, spent.accounting_method) == (DELTA, "pld")
    assert spent.num_releases == sum(release.steps for release in any_plan.releases)


def test_nothing_composed_costs_nothing(any_plan):
    accountant = PlanAccountant(any_plan)
    assert accountant.get_privacy_spent().epsilon == accountant.get_delta(0.5) == 0.0
    assert accountant.num_releases == 0


def test_epsilon_is_the_whole_plans_from_the_first_release_on(any_plan):
    accountant = PlanAccountant(any_plan)
    accountant.compose(one_release(accountant))
    assert accountant.get_epsilon(DELTA) >= any_plan.epsilons()["epsilon"]


def test_flowers_accountant_agrees_with_the_plans_rdp(any_plan):
    """The same events in Flower's RdpAccountant: above our PLD, at our RDP figure."""
    ours = composed(any_plan)
    flowers = compose_all(_Translated(ours, RdpAccountant(ours.config)), any_plan).inner
    assert flowers.num_releases == ours.num_releases
    assert flowers.get_epsilon(DELTA) == pytest.approx(any_plan.epsilons()["epsilon_rdp"], rel=1e-6)
    assert ours.get_epsilon(DELTA) <= flowers.get_epsilon(DELTA)


class _Translated:
    """Flower's accountant, told our events."""

    def __init__(self, ours, inner):
        self.composition_of, self.inner = ours.composition_of, inner
        self.compose = inner.compose


def test_delta_and_epsilon_are_inverse(any_plan):
    accountant = composed(any_plan)
    epsilon = accountant.get_epsilon(DELTA)
    assert accountant.get_delta(epsilon) == pytest.approx(DELTA, rel=1e-3)
    assert accountant.get_delta(epsilon / 2) > DELTA > accountant.get_delta(epsilon * 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_multiplier": 1.0},
        {"population_size": 2_000_000},
        {"sample_size": 199_999},
    ],
)
def test_event_that_is_not_in_the_plan_is_refused(sampled_plan, changes):
    accountant = PlanAccountant(sampled_plan)
    event = replace(one_release(accountant, "mf", 2), **changes)
    for ask in (accountant.compose, accountant.would_exceed):
        with pytest.raises(RefusalError, match="no release"):
            ask(event)
    assert accountant.num_releases == 0


def test_more_noise_than_planned_is_another_plan(plan):
    accountant = PlanAccountant(plan)
    event = one_release(accountant)
    with pytest.raises(RefusalError):
        accountant.compose(replace(event, noise_multiplier=event.noise_multiplier * 1.01))


def test_planned_release_of_another_round_is_none(plan):
    with pytest.raises(RefusalError):
        PlanAccountant(plan).composition_of("gram", 3)


def test_budget_covers_all_that_is_planned_and_no_more(any_plan):
    accountant = composed(any_plan)
    event = one_release(accountant)
    assert accountant.would_exceed(event)
    assert accountant.would_exceed(event, max_epsilon=1e6)
    with pytest.raises(BudgetError, match="would cost"):
        accountant.compose(event)
    assert accountant.get_epsilon(DELTA) == any_plan.epsilons()["epsilon"]


def test_failed_attempt_is_charged_again_and_ends_the_certificate(plan):
    """Popularity takes a tenth of the budget, so ten attempts fit and no Gram after that."""
    accountant = PlanAccountant(plan)
    event = one_release(accountant)
    accountant.compose(event)
    assert accountant.would_exceed(event)  # more than the plan's own target
    accountant.compose(event, 8)
    spent = accountant.get_privacy_spent()
    assert (spent.accounting_method, spent.num_releases) == ("rdp", 9)
    assert spent.epsilon >= plan.epsilons()["epsilon"]
    assert accountant.get_delta(spent.epsilon) == pytest.approx(DELTA, rel=1e-6)
    with pytest.raises(BudgetError):
        accountant.compose(one_release(accountant, "gram", 2))


def test_limit_below_the_whole_plan_is_exceeded_by_its_first_release(plan):
    accountant = PlanAccountant(plan)
    event = one_release(accountant)
    assert accountant.would_exceed(event, max_epsilon=0.9)
    assert not accountant.would_exceed(event)
    assert accountant.num_releases == 0


def test_earlier_plan_counts_before_anything_is_released(make_plan, plan):
    later = make_plan(
        [("mf", 1, 7)], epsilon=2.0, earlier=plan.releases, earlier_digest=plan.digest
    )
    accountant = PlanAccountant(later)
    assert accountant.get_epsilon(DELTA) == plan.epsilons()["epsilon"]
    assert compose_all(accountant, later).get_epsilon(DELTA) == later.epsilons()["epsilon"]


def test_failed_attempt_after_an_earlier_plan_is_charged_on_top_of_it(make_plan, plan):
    """RDP adds up at one order: what the filter lets through, and all of the earlier plan."""
    more = {"epsilon": 2.0, "earlier": plan.releases, "earlier_digest": plan.digest}
    later = make_plan([("mf", 1, 7), ("fusion", 3, 5)], **more)
    accountant = PlanAccountant(later)
    accountant.compose(one_release(accountant, "mf", 1), 2)
    units = later.budget_units + sum(map(later.cost, plan.releases))
    expected = epsilon_at(units, Fraction(later.order), DELTA)
    assert accountant.get_epsilon(DELTA) == expected > later.epsilons()["epsilon"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=6))
def test_state_replays_exactly_whatever_was_composed(sampled_plan, choices):
    accountant = PlanAccountant(sampled_plan)
    for number, times in choices:
        release = sampled_plan.releases[number]
        event = one_release(accountant, release.kind, release.round_num)
        try:
            accountant.compose(event, times)
        except BudgetError:
            continue
    state = json.loads(json.dumps(accountant.state_dict()))
    again = PlanAccountant(sampled_plan)
    again.load_state_dict(state)
    assert again.state_dict() == accountant.state_dict()
    assert again.get_privacy_spent() == accountant.get_privacy_spent()


@pytest.mark.parametrize(
    "damage",
    [
        {"schema_version": 2},
        {"backend": "rdp"},
        {"plan": "sha256:other"},
        {"compositions": None},
        {"compositions": [{}]},
        {"compositions": [{"noise_multiplier": 1.0, "sample_size": 1, "count": 1, "more": 1}]},
        {"compositions": [{"noise_multiplier": 1.0, "sample_size": 1_000_000, "count": 1}]},
        {"compositions": [{"noise_multiplier": None, "sample_size": 1, "count": 1}]},
    ],
)
def test_damaged_state_is_refused_and_changes_nothing(plan, damage):
    accountant = composed(plan)
    before = accountant.state_dict()
    with pytest.raises((ConfigError, PrivacyError)):
        accountant.load_state_dict({**before, **damage})
    assert accountant.state_dict() == before


def test_state_beyond_the_budget_is_refused(plan):
    state = composed(plan).state_dict()
    state["compositions"][0]["count"] = 1000
    with pytest.raises(BudgetError):
        PlanAccountant(plan).load_state_dict(state)


@pytest.mark.parametrize("count", [0, -1, True, 1.0])
def test_odd_counts_are_refused(plan, count):
    accountant = PlanAccountant(plan)
    with pytest.raises(ConfigError, match="count"):
        accountant.compose(one_release(accountant), count)


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf"), True])
def test_odd_limits_and_deltas_are_refused(plan, number):
    accountant = composed(plan)
    with pytest.raises(ConfigError):
        accountant.get_epsilon(number)
    with pytest.raises(ConfigError):
        PlanAccountant(plan).would_exceed(one_release(accountant), number)
    if number != 0.0:
        with pytest.raises(ConfigError):
            accountant.get_delta(number)


def test_flowers_strategy_reports_the_plans_figures_and_stops_with_it(make_plan):
    """Three planned rounds under Flower's own wrapper: the fourth is refused by its own error."""
    plan = make_plan([Statistic(kind="mf", share=1, dim=7, rounds=3)])
    accountant = PlanAccountant(plan)
    strategy = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(),
        noise_multiplier=one_release(accountant, "mf").noise_multiplier,
        clipping_norm=1.0,
        num_sampled_clients=2,
        accountant=accountant,
    )
    for round_num in (1, 2, 3):
        strategy._prepare_accounting(round_num, [object(), object()])
        strategy._compose_release(strategy._pop_pending_event(round_num))
    assert strategy.privacy_spent().epsilon == plan.epsilons()["epsilon"]
    strategy.summary()
    with pytest.raises(PrivacyBudgetExhausted):
        strategy._prepare_accounting(4, [object(), object()])


def test_without_sampling_flowers_sample_size_is_for_reports_only(plan):
    accountant = PlanAccountant(plan)
    event = one_release(accountant)
    accountant.compose(GaussianPrivacyEvent(event.noise_multiplier, 3, event.population_size))
    assert accountant.num_releases == 1
