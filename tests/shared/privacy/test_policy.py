"""The owner's limits: to the unit, to the second, and refused where they would allow anything."""

import math
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest

from fondaco.shared.errors import BudgetError, ConfigError, RefusalError
from fondaco.shared.privacy import accountant
from fondaco.shared.privacy.policy import Policy

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
REST = math.log(7 / 8) - math.log(8e-6) / 7
"""Epsilon at order 8 and delta 1e-6 of releases that cost nothing (Canonne et al. 2020)."""
LIMITS = Policy(
    epsilon_per_year="6", epsilon_if_masking_broke="50", target_delta="1e-6", order="8/1"
)


def _of_units(units):
    """A policy whose yearly budget is exactly that many units."""
    return replace(LIMITS, epsilon_per_year=repr(REST + (units + 0.5) / 10**9))


def _debit(event, before_now):
    return {"ts": (NOW - before_now).isoformat(), "event": asdict(event)}


def test_yearly_budget_is_what_the_limit_leaves_rounded_down():
    assert 0 <= (6 - REST) * 10**9 - LIMITS.budget_units < 1
    assert accountant.epsilon_at(LIMITS.budget_units, Fraction(8), 1e-6) <= 6


def test_policy_charges_a_release_at_its_own_order(plan):
    event = plan.releases[0]
    assert LIMITS.cost(event) == accountant.rdp_units(event.joint, Fraction(8)) != plan.cost(event)


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        *(("epsilon_per_year", value) for value in ("0", "-1", "inf", "nan", "much", "1.5")),
        *(("epsilon_if_masking_broke", value) for value in ("0", "-1", "inf", "nan", "")),
        *(("target_delta", value) for value in ("0", "1", "2", "-1e-6", "nan")),
        *(("order", value) for value in ("1", "1/2", "-3", "0", "1/0", "many")),
    ],
)
def test_policy_refuses_a_limit_out_of_range(limit, value):
    with pytest.raises(ConfigError):
        replace(LIMITS, **{limit: value})


def test_policy_needs_a_budget_of_one_unit():
    assert _of_units(1).budget_units == 1
    with pytest.raises(ConfigError, match="no budget"):
        _of_units(0)


def test_plan_may_cost_the_cap_in_the_clear_and_no_more(plan):
    clear = plan.epsilons()["clear_shares"]
    replace(LIMITS, epsilon_if_masking_broke=repr(clear)).check_plan(plan)
    with pytest.raises(RefusalError, match="were masking broken") as caught:
        replace(LIMITS, epsilon_if_masking_broke=repr(clear - 1e-9)).check_plan(plan)
    assert caught.value.code == "masking-cap"


def test_plan_may_cost_the_whole_year_and_no_more(plan):
    cost = sum(LIMITS.cost(event) for event in plan.releases)
    _of_units(cost).check_plan(plan)
    with pytest.raises(BudgetError) as caught:
        _of_units(cost - 1).check_plan(plan)
    assert caught.value.code == "policy-budget"


def test_year_may_be_spent_to_the_unit():
    LIMITS.check_year(LIMITS.budget_units, [], NOW)
    with pytest.raises(BudgetError, match=r"epsilon 10\.46 .* allows 6"):
        LIMITS.check_year(2 * LIMITS.budget_units, [], NOW)
    with pytest.raises(BudgetError):
        LIMITS.check_year(LIMITS.budget_units + 1, [], NOW)


@pytest.mark.parametrize("age", [timedelta(), timedelta(days=365, seconds=-1)])
def test_debits_of_the_last_365_days_are_spent(plan, age):
    first, second = plan.releases
    left = LIMITS.budget_units - LIMITS.cost(first) - LIMITS.cost(second)
    debits = [_debit(first, age), _debit(second, age)]
    LIMITS.check_year(left, debits, NOW)
    with pytest.raises(BudgetError):
        LIMITS.check_year(left + 1, debits, NOW)


def test_debits_older_than_365_days_are_forgotten(plan):
    debits = [_debit(event, timedelta(days=365)) for event in plan.releases]
    LIMITS.check_year(LIMITS.budget_units, debits, NOW)


def test_plan_may_have_the_owners_delta_and_no_larger_one(plan):
    replace(LIMITS, target_delta=plan.target_delta).check_plan(plan)
    with pytest.raises(RefusalError, match="above the policy's") as caught:
        replace(LIMITS, target_delta="9e-7").check_plan(plan)
    assert caught.value.code == "delta"
