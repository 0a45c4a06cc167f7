"""Plans that nobody approved, that are over or beyond the limits: nothing is released for them."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from malicious_orders import COHORTS, OTHER

from fondaco.client.limits import new_policy
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.chain.keys import Identity
from fondaco.shared.errors import (
    BudgetError,
    ConfigError,
    RefusalError,
)
from fondaco.shared.privacy import ledger as ledger_module
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import RunPlan

# ---- plans that nobody approved ----


def test_plan_with_less_noise_is_refused_until_it_is_signed(silo, make_plan, make_roster):
    weaker = make_plan(epsilon=2.0, trust="silo", **make_roster(mode="deploy"))
    assert weaker.releases[0].stddev_grid < silo.plan.releases[0].stddev_grid
    order = silo.request(plan_digest=weaker.digest)
    silo.refused(lambda: silo.ask(order), "other-plan")


def test_agent_given_a_plan_that_was_not_approved_debits_nothing(silo, make_plan, make_roster):
    """Even whoever swaps the plan under the agent meets the ledger's own record of approval."""
    weaker = make_plan(epsilon=2.0, trust="silo", **make_roster(mode="deploy"))
    agent = silo.agent_for(weaker)
    order = silo.request(plan_digest=weaker.digest)
    silo.refused(lambda: agent.run_round(order, silo.witnessed()), "not-approved")


def test_silo_without_an_approved_plan_releases_nothing(deployed, make_silo):
    silo = make_silo(deployed, approve=False)
    with pytest.raises(RefusalError) as caught:
        silo.ask(silo.request())
    assert caught.value.code == "not-approved"
    assert [r["type"] for r in silo.records()] == ["GENESIS", "REFUSAL"]
    with silo.ledger() as ledger:
        ledger.approve(deployed)
    silo.works()


def test_withdrawn_plan_is_refused(silo):
    silo.works()
    with silo.ledger() as ledger:
        ledger.approve(silo.plan, approved=0, reason="enough")
    with pytest.raises(RefusalError, match="enough") as caught:
        silo.ask(silo.request("gram"))
    assert caught.value.code == "left"
    assert silo.records("REFUSAL")[-1]["code"] == "left"


class _Day(ledger_module.datetime):
    day = "2999-12-31T23:59:59+00:00"

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(cls.day)


def test_expired_plan_is_refused_on_the_day_after(silo, make_plan, make_roster, monkeypatch):
    monkeypatch.setattr(ledger_module, "datetime", _Day)
    monkeypatch.setattr(_Day, "day", "3000-01-01T00:00:00+00:00")
    with pytest.raises(RefusalError, match="2999-12-31") as caught:
        silo.ask(silo.request())
    assert caught.value.code == "expired"
    assert [r["type"] for r in silo.records()][3:] == ["REFUSAL"]
    monkeypatch.setattr(_Day, "day", "2999-12-31T23:59:59+00:00")
    silo.works()


OPEN_DEBIT = {
    "expired": lambda silo, patch: (
        patch.setattr(ledger_module, "datetime", _Day),
        patch.setattr(_Day, "day", "3000-01-01T00:00:00+00:00"),
    ),
    "left": lambda silo, patch: _leave(silo),
}


def _leave(silo):
    with silo.ledger() as ledger:
        ledger.approve(silo.plan, approved=0, reason="enough")


@pytest.mark.parametrize("code", OPEN_DEBIT)
def test_debit_left_open_by_a_crash_releases_nothing_once_the_plan_is_over(silo, monkeypatch, code):
    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record_release", die)
        with suppress(KeyboardInterrupt):
            silo.ask(silo.request())
    assert len(silo.records("DEBIT")) == 1
    OPEN_DEBIT[code](silo, monkeypatch)
    with pytest.raises(RefusalError) as caught:
        silo.ask(silo.request())
    assert caught.value.code == code
    assert not silo.records("RELEASE")


def test_limits_of_the_year_are_held_across_plans(silo, make_plan, make_roster):
    """A second plan, signed under tighter limits, ends where the year's budget does."""
    silo.ask(silo.request())
    silo.ask(silo.request("gram"))
    with silo.ledger() as ledger:
        spent = float(silo.plan.epsilons()["epsilon_rdp"])
        ledger.adopt(new_policy(None, spent * 1.05, 50.0, 1e-6))
        second = make_plan(trust="silo", public={"split": "2"}, **make_roster(mode="deploy"))
        ledger.approve(second)
    other = silo.agent_for(second)
    order = silo.request("gram", plan_digest=second.digest)
    with pytest.raises(BudgetError, match="per year") as caught:
        other.run_round(order, silo.witnessed())
    assert caught.value.code == "policy-budget"
    assert silo.records("REFUSAL")[-1]["code"] == "policy-budget"
    assert len(silo.records("DEBIT")) == 2


def test_plan_beyond_the_cap_if_masking_broke_cannot_be_approved(deployed, make_silo):
    silo = make_silo(deployed, approve=False)
    with silo.ledger() as ledger:
        ledger.adopt(new_policy(None, 50.0, 0.5, 1e-6))
        before = ledger.records()
        with pytest.raises(RefusalError) as caught:
            ledger.approve(deployed)
        assert caught.value.code == "masking-cap"
        assert ledger.records() == before


def test_limits_tightened_after_the_approval_stop_the_next_round(silo):
    with silo.ledger() as ledger:
        ledger.adopt(new_policy(None, 50.0, 0.5, 1e-6))
    with pytest.raises(RefusalError) as caught:
        silo.ask(silo.request())
    assert caught.value.code == "masking-cap"
    with silo.ledger() as ledger:
        ledger.adopt(new_policy(None, 50.0, 50.0, 1e-6))
    silo.works()


# ---- agents that are never made ----


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"mode": "simulation", "roster": {}, "witnesses": 0}, None),
        ({"code_digest": OTHER}, "other-code"),
        ({"catalogue_digest": OTHER}, "catalogue"),
    ],
    ids=["simulation", "code", "catalogue"],
)
def test_agent_is_not_made_for_another_plan_code_or_catalogue(silo, change, why):
    plan = replace(silo.plan, **change)
    if why is None:  # a simulation's plan has another digest, so nothing of it was approved
        agent = silo.agent_for(plan)
        order = silo.request(plan_digest=plan.digest)
        silo.refused(lambda: agent.run_round(order), "not-approved")
        return
    with pytest.raises(RefusalError):
        silo.agent_for(plan)


def test_agent_is_not_made_for_other_items_or_another_key(silo, catalogue):
    items = Catalogue(
        items=catalogue.items,
        texts=("x", *catalogue.texts[1:]),
        categories=catalogue.categories,
        brands=catalogue.brands,
        prices=catalogue.prices,
    )
    with pytest.raises(RefusalError, match="catalogue"):
        silo.agent_for(silo.plan, catalogue=items)
    thief = Identity.generate("fondaco/north")
    with pytest.raises(RefusalError, match="another key"):
        silo.agent_for(silo.plan, identity=thief)


@pytest.mark.parametrize("name", COHORTS)
def test_plan_with_another_cohort_is_no_plan_or_not_approved(silo, name):
    raw = json.loads(silo.plan.to_json())
    raw["cohort"] = COHORTS[name]
    try:
        plan = RunPlan.from_json(json.dumps(raw))
    except ConfigError:
        silo.works()
        return
    agent = silo.agent_for(plan)
    order = silo.request(plan_digest=plan.digest)
    silo.refused(lambda: agent.run_round(order, silo.witnessed()), "not-approved")


@pytest.mark.parametrize(
    "change",
    [
        {"stddev_grid": 10},
        {"silo_stddev_grid": 1},
        {"sens_grid": 1},
        {"kind": "customers"},
        {"kind": "a\u2028b"},
        {"dim": 0},
        {"round_num": 0},
        {"sampling_ppm": 0},
        {"steps": 10**6},
    ],
    ids=str,
)
def test_plan_whose_releases_were_changed_is_no_plan_or_cannot_run(silo, change):
    raw = json.loads(silo.plan.to_json())
    raw["releases"][0] |= change

    def run():
        plan = RunPlan.from_json(json.dumps(raw))
        silo.agent_for(plan)

    with pytest.raises((ConfigError, RefusalError)):
        run()
    silo.works()
