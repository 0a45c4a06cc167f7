"""The last value that a plan may hold of every bounded term, and the first that it may not."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import pytest

from fondaco.shared.calibration import Statistic
from fondaco.shared.chain.keys import Identity
from fondaco.shared.errors import ConfigError
from fondaco.shared.plan_text import from_toml, to_toml
from fondaco.shared.privacy import accountant
from fondaco.shared.privacy.plan import Cohort


def _with_event(plan, **changes):
    return replace(plan, releases=(replace(plan.releases[0], **changes), *plan.releases[1:]))


def _at_order(plan, order):
    return replace(
        plan,
        order=order,
        budget_units=sum(accountant.rdp_units(m, Fraction(order)) for m in plan.mechanisms),
    )


@pytest.mark.parametrize(
    ("given", "cohort"),
    [
        ((2,), (2, 2, 1)),
        ((5,), (5, 5, 1)),
        ((10,), (10, 9, 1)),
        ((19,), (19, 18, 1)),
        ((20,), (20, 18, 2)),
        ((20, 7), (20, 7, 2)),
        ((40, 3), (40, 3, 2)),
        ((20, 0, 5), (20, 18, 5)),
    ],
)
def test_cohort_default_fills_in_only_what_is_not_given(given, cohort):
    found = Cohort.default(*given)
    assert (found.n_silos, found.n_min, found.t_collude) == cohort


def test_cohort_may_hold_all_silos_and_lose_none():
    assert Cohort(n_silos=3, n_min=3, t_collude=2).n_min == 3
    assert Cohort(n_silos=3, n_min=1, t_collude=0).n_min == 1


@pytest.mark.parametrize(("stddev", "share"), [(1000, 500), (1001, 501), (999, 500)])
def test_silo_share_is_rounded_up_only_where_it_must_be(stddev, share):
    cohort = Cohort(n_silos=6, n_min=5, t_collude=1)
    assert cohort.silo_stddev(stddev, "aggregate") == share


@pytest.mark.parametrize("stddev", [100, 2**40])
def test_noise_that_the_grid_just_carries_is_held_against_the_budget(plan, stddev):
    with pytest.raises(ConfigError, match="budget"):
        _with_event(plan, stddev_grid=stddev, silo_stddev_grid=stddev)


@pytest.mark.parametrize("silo_stddev", [99, 2**40 + 1])
def test_noise_of_a_silo_alone_is_bounded_too(plan, silo_stddev):
    with pytest.raises(ConfigError, match="must lie between"):
        _with_event(plan, silo_stddev_grid=silo_stddev)


@pytest.mark.parametrize(("grid", "why"), [(2**24, "budget"), (2**24 + 1, "sensitivity")])
def test_grid_is_bounded(plan, grid, why):
    events = (replace(event, sens_grid=grid) for event in plan.releases)
    with pytest.raises(ConfigError, match=why):
        replace(plan, grid=grid, releases=tuple(events))


@pytest.mark.parametrize(("steps", "why"), [(1000, "cannot be shared"), (1001, "out of range")])
def test_steps_are_bounded(plan, steps, why):
    with pytest.raises(ConfigError, match=why):
        _with_event(plan, steps=steps)


@pytest.mark.parametrize(("head", "n_items"), [(0, 5), (6, 5), (0, 0), (-1, 5)])
def test_head_is_a_part_of_the_catalogue(plan, head, n_items):
    replace(plan, head=5)
    replace(plan, head=1, n_items=1)
    with pytest.raises(ConfigError, match="head"):
        replace(plan, head=head, n_items=n_items)


@pytest.mark.parametrize("target", ["0", "1000.5", "1001"])
def test_target_is_bounded(plan, target):
    assert replace(plan, target_epsilon="1000").target_epsilon == "1000"
    with pytest.raises(ConfigError, match="out of range"):
        replace(plan, target_epsilon=target)


def test_target_may_be_the_certificate_itself(plan):
    epsilon = plan.epsilons()["epsilon"]
    replace(plan, target_epsilon=repr(epsilon))
    with pytest.raises(ConfigError, match="cost epsilon"):
        replace(plan, target_epsilon=repr(math.nextafter(epsilon, 0)))


def test_target_far_below_is_refused_with_what_rdp_says(make_plan):
    dear = make_plan(epsilon=8.0)
    epsilon = dear.epsilons()["epsilon_rdp"]
    with pytest.raises(ConfigError, match=f"cost epsilon {epsilon:.4f}, not 0.5"):
        replace(dear, target_epsilon="0.5")


@pytest.mark.parametrize("order", ["2", "10", "15", "30", "60"])
def test_order_at_which_attempts_are_cheap_is_refused(plan, order):
    assert _at_order(plan, plan.order) == plan
    with pytest.raises(ConfigError, match="attempts alone"):
        _at_order(plan, order)


def test_filter_alone_allows_hardly_more_than_the_plan(plan):
    spent = accountant.epsilon_at(plan.budget_units, Fraction(plan.order), 1e-6)
    assert spent <= 1.001 * plan.epsilons()["epsilon_rdp"]


@pytest.mark.parametrize(
    ("n_silos", "witnesses", "sound"),
    [(10, 8, True), (10, 2, True), (2, 1, True), (2, 0, False), (1, 0, True), (30, 3, False)],
)
def test_deployed_plan_needs_a_witness_that_does_not_collude_if_there_is_one(
    make_plan, make_roster, n_silos, witnesses, sound
):
    terms = make_roster(n_silos, mode="deploy", witnesses=witnesses)
    if sound:
        assert make_plan(n_silos=n_silos, trust="silo", **terms).witnesses == witnesses
    else:
        with pytest.raises(ConfigError, match="colluding"):
            make_plan(n_silos=n_silos, trust="silo", **terms)


@pytest.mark.parametrize("witnesses", [-1, 9])
def test_simulated_plan_has_no_more_witnesses_than_others(plan, make_roster, witnesses):
    replace(plan, **make_roster(witnesses=0))
    replace(plan, **make_roster(witnesses=8))
    with pytest.raises(ConfigError, match="between 0 and 8"):
        replace(plan, **make_roster(witnesses=witnesses))


def test_witnesses_need_a_roster_and_so_does_a_deployment(plan, make_plan, make_roster):
    none = {"roster": {}, "coordinator": ""}
    with pytest.raises(ConfigError):
        replace(plan, witnesses=2)
    with pytest.raises(ConfigError):
        make_plan(trust="silo", **{**make_roster(mode="deploy"), **none})
    with pytest.raises(ConfigError):
        make_plan(n_silos=1, trust="silo", mode="deploy")


def test_epsilon_among_the_honest_rests_on_all_their_noise(plan):
    delta, shares = 1e-6, [event.share for event in plan.releases]
    for honest, n in ((None, plan.cohort.n_min), (4, 4)):
        joined = tuple(s._replace(multiplier=s.multiplier * Fraction(n**0.5)) for s in shares)
        expected = min(accountant.epsilon_bound(joined, delta), plan.epsilons()["epsilon"])
        assert plan.epsilons(honest)["all_honest"] == expected
    assert plan.epsilons()["clear_shares"] == accountant.epsilon_bound(tuple(shares), delta)


def test_epsilon_among_the_honest_is_that_of_one_silo_where_each_protects_itself(make_plan):
    plan = make_plan(trust="silo")
    exact = accountant.epsilon_bound(plan.mechanisms, 1e-6)
    assert exact < plan.epsilons(4)["epsilon"]
    assert plan.epsilons(4)["all_honest"] == exact


def test_plan_says_by_which_schema_it_is_read(plan):
    assert json.loads(plan.to_json())["schema"] == 4
    with pytest.raises(ConfigError, match="no plan of schema 4"):
        plan.from_json("{}")


def test_rare_samples_are_certified_where_rdp_tells_ten_times_as_much(make_plan):
    rare = Statistic(kind="popularity", share=1, dim=5, sampling_ppm=1000, steps=10)
    epsilons = make_plan([rare], epsilon=0.05, trust="silo").epsilons()
    assert epsilons["epsilon"] <= 0.05
    assert epsilons["epsilon_rdp"] > 0.5


def test_two_silos_cannot_swap_their_keys(plan, make_roster):
    known = make_roster()
    first, second = list(known["roster"])[:2]
    swapped = {**known["roster"], first: known["roster"][second], second: known["roster"][first]}
    with pytest.raises(ConfigError, match="another silo's name"):
        replace(plan, **{**known, "roster": swapped})


def test_plan_of_too_many_releases_is_refused_before_it_is_counted(plan):
    table = to_toml(plan).replace("rounds = 1\n", "rounds = 19999\n")
    with pytest.raises(ConfigError, match="more than 20000 releases"):
        from_toml(table)


def test_coordinator_is_named_as_one(plan, make_roster):
    known = make_roster()
    with pytest.raises(ConfigError, match="is named fondaco/stranger"):
        replace(
            plan,
            **{**known, "coordinator": Identity.seeded(0, "fondaco/stranger").public.text()},
        )


@pytest.mark.parametrize("order", ["1.0009", "100001", "1.00000000000000000001"])
def test_order_that_no_accountant_can_handle_is_refused(plan, order):
    with pytest.raises(ConfigError, match="out of range"):
        replace(plan, order=order)
