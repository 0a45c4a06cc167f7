import json
import math
from dataclasses import replace
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.chain.canonical import canonical_json
from fondaco.shared.errors import ConfigError, RefusalError
from fondaco.shared.privacy.plan import Cohort, RunPlan


def _with_event(plan, num=0, **changes):
    events = list(plan.releases)
    events[num] = replace(events[num], **changes)
    return replace(plan, releases=tuple(events))


def test_cohort_default_leaves_a_tenth_out_and_a_tenth_colluding():
    assert Cohort.default(30) == Cohort(n_silos=30, n_min=27, t_collude=3)


def test_cohort_of_one_has_nobody_to_collude():
    assert Cohort.default(1) == Cohort(n_silos=1, n_min=1, t_collude=0)


@pytest.mark.parametrize(("n_silos", "n_min", "t"), [(3, 0, 0), (3, 4, 0), (3, 2, 2), (3, 2, -1)])
def test_cohort_refuses_numbers_that_leave_no_honest_silo(n_silos, n_min, t):
    with pytest.raises(ConfigError):
        Cohort(n_silos=n_silos, n_min=n_min, t_collude=t)


@given(st.integers(6, 10_000), st.integers(100, 2**40))
def test_silo_shares_of_the_honest_add_up_to_the_whole_noise(n_silos, stddev):
    cohort = Cohort.default(n_silos)
    share = cohort.silo_stddev(stddev, "aggregate")
    honest = cohort.n_min - cohort.t_collude
    assert honest * share**2 >= stddev**2 > honest * (share - 1) ** 2


@pytest.mark.parametrize("n_silos", [1, 2, 3, 4, 5])
def test_silo_share_is_the_whole_noise_up_to_five_silos(n_silos):
    assert Cohort.default(n_silos).silo_stddev(1000, "aggregate") == 1000


def test_silo_share_is_the_whole_noise_where_each_silo_protects_itself():
    assert Cohort.default(100).silo_stddev(1000, "silo") == 1000


def test_plan_releases_split_mu_squared_by_their_shares(plan):
    first, second = (1 / m.multiplier**2 for m in plan.mechanisms)
    assert math.isclose(first / (first + second), 0.1, rel_tol=1e-5)


def test_plan_costs_at_most_its_target_and_nearly_all_of_it(plan):
    assert 0.999 < plan.epsilons()["epsilon"] <= 1.0


def test_plan_states_what_clear_shares_would_cost(plan):
    epsilons = plan.epsilons()
    assert epsilons["all_honest"] < epsilons["epsilon"] < epsilons["epsilon_rdp"]
    assert epsilons["clear_shares"] > 2 * epsilons["epsilon"]


def test_plan_of_full_shares_costs_the_same_in_the_clear(make_plan):
    epsilons = make_plan(trust="silo").epsilons()
    assert epsilons["clear_shares"] == epsilons["epsilon"]
    assert epsilons["all_honest"] == pytest.approx(epsilons["epsilon"], abs=1e-4)


def test_budget_is_the_plans_own_cost(plan):
    assert plan.budget_units == sum(plan.cost(event) for event in plan.releases)


def test_plan_survives_its_canonical_text(plan):
    again = RunPlan.from_json(plan.to_json())
    assert again == plan
    assert again.digest == plan.digest


def test_plan_digest_changes_with_any_promise(plan, make_plan):
    digests = {plan.digest, make_plan(epsilon=1.01).digest, make_plan(delta=1e-7).digest}
    digests |= {replace(plan, head=3).digest, replace(plan, public={}).digest}
    assert len(digests) == 5


def test_plan_digest_changes_with_the_terms_of_a_model(plan):
    models = [{}, {"gram": {"head": "3"}}, {"mf": {"head": "4"}}, {"gram": {"head": "4", "n": "1"}}]
    assert len({plan.digest, *(replace(plan, models=m).digest for m in models)}) == 5


@pytest.mark.parametrize("terms", [{"rate": 0.1}, {"widths": ["1"]}, {1: "1"}, None, ["1"], "1"])
def test_plan_refuses_terms_that_are_not_text(plan, terms):
    with pytest.raises(ConfigError, match="text"):
        replace(plan, models={"mf": terms})
    with pytest.raises(ConfigError, match="text"):
        replace(plan, public=terms)


def test_certificate_covers_earlier_releases_and_the_budget_does_not(plan, make_plan):
    later = make_plan(epsilon=2.0, earlier=plan.releases, earlier_digest=plan.digest)
    assert 0.999 * 2.0 <= later.epsilons()["epsilon"] <= 2.0
    assert later.budget_units == sum(later.cost(event) for event in later.releases)
    assert len(later.mechanisms) == 4


def test_plan_refuses_releases_that_exceed_the_target_with_the_earlier_ones(plan):
    with pytest.raises(ConfigError, match="cost epsilon"):
        replace(plan, earlier=plan.releases, earlier_digest=plan.digest)


def test_earlier_releases_and_the_digest_of_their_plan_go_together(plan, make_plan):
    later = make_plan(epsilon=2.0, earlier=plan.releases, earlier_digest=plan.digest)
    for change in ({"earlier_digest": ""}, {"earlier": ()}):
        with pytest.raises(ConfigError, match="go together"):
            replace(later, **change)


OUT_OF_RANGE = [
    {"kind": ""},
    {"kind": "gram\n"},
    {"round_num": 0},
    {"dim": 0},
    {"sens_grid": 0},
    {"stddev_grid": 0},
    {"silo_stddev_grid": 0},
    {"sampling_ppm": 0},
    {"sampling_ppm": -5},
    {"sampling_ppm": 1_000_001},
    {"steps": 0},
    {"steps": 1001},
]


@pytest.mark.parametrize("change", OUT_OF_RANGE, ids=str)
def test_plan_refuses_releases_out_of_range_planned_or_earlier(plan, change):
    bad = replace(plan.releases[1], **change)
    with pytest.raises(ConfigError, match="out of range"):
        replace(plan, releases=(plan.releases[0], bad))
    with pytest.raises(ConfigError, match="out of range"):
        replace(plan, earlier=(bad,), earlier_digest=plan.digest)


def test_earlier_releases_with_steps_below_zero_give_no_budget_back(plan, make_plan):
    dear = make_plan(epsilon=8.0)
    minus = tuple(replace(event, steps=-1) for event in dear.releases)
    with pytest.raises(ConfigError, match="out of range"):
        replace(
            dear,
            target_epsilon="1.0",
            earlier=(*minus, *plan.releases),
            earlier_digest=plan.digest,
        )


@pytest.mark.parametrize("target", ["inf", "nan", "-inf"])
def test_plan_refuses_a_target_that_is_not_finite(plan, target):
    with pytest.raises(ConfigError, match=r"epsilon|decimal"):
        replace(plan, target_epsilon=target)


def test_plan_with_earlier_releases_survives_its_canonical_text(plan, make_plan):
    later = make_plan(epsilon=2.0, earlier=plan.releases, earlier_digest=plan.digest)
    again = RunPlan.from_json(later.to_json())
    assert (again, again.digest) == (later, later.digest)
    assert again.earlier == plan.releases


def test_plan_text_holds_no_float(plan):
    json.loads(plan.to_json(), parse_float=pytest.fail)


@pytest.mark.parametrize(
    ("term", "value"),
    [
        ("schema", 1),
        ("unit", "row"),
        ("adjacency", "replace-one"),
        ("max_silos_per_customer", 2),
        ("trust", "Silo"),
        ("mode", "production"),
        ("secure_aggregation", "yes"),
    ],
)
def test_plan_refuses_a_term_it_does_not_know(plan, term, value):
    with pytest.raises(ConfigError, match=term):
        replace(plan, **{term: value})


def test_plan_refuses_shared_noise_outside_of_simulations(plan, make_roster):
    with pytest.raises(ConfigError, match="needs secure_aggregation='masked-sum'"):
        replace(plan, **make_roster(mode="deploy"))


def test_plan_permits_full_noise_in_a_deployment(make_plan, make_roster):
    assert make_plan(trust="silo", **make_roster(mode="deploy")).mode == "deploy"


@pytest.mark.parametrize("witnesses", [-1, 0, 1, 9])
def test_deployed_plan_needs_more_witnesses_than_may_collude(make_plan, make_roster, witnesses):
    with pytest.raises(ConfigError, match="witnesses"):
        make_plan(trust="silo", **make_roster(mode="deploy", witnesses=witnesses))


def test_roster_names_every_silo_under_its_own_key(plan, make_roster):
    known = make_roster()
    roster = dict(known["roster"])
    first, second = list(roster)[:2]
    broken = [
        {**roster, first: roster[second]},
        {silo: key for silo, key in roster.items() if silo != first},
        {**roster, first: known["coordinator"]},
        {**roster, first: "fondaco/north+00000000+AAAA"},
    ]
    replace(plan, **known)
    for wrong in broken:
        with pytest.raises(ConfigError):
            replace(plan, **{**known, "roster": wrong})


def test_plan_is_good_until_its_last_day(plan):
    last = replace(plan, expires="2027-01-31")
    assert last.allows(date(2027, 1, 31))
    assert not last.allows(date(2027, 2, 1))


@pytest.mark.parametrize("day", ["", "2027-02-30", "31.1.2027", "2027-01-31T00:00", "20270131"])
def test_plan_refuses_a_last_day_that_is_none(plan, day):
    with pytest.raises(ConfigError, match="expires"):
        replace(plan, expires=day)


def test_plan_refuses_silos_that_add_less_than_the_guarantee_rests_on(plan):
    share = plan.releases[0].silo_stddev_grid
    with pytest.raises(ConfigError, match="less noise"):
        _with_event(plan, silo_stddev_grid=share - 1)


def test_plan_refuses_a_share_of_noise_where_each_silo_protects_itself(plan):
    with pytest.raises(ConfigError, match="less noise"):
        replace(plan, trust="silo", secure_aggregation="none")


def test_plan_refuses_releases_that_cost_more_than_it_says(plan):
    with pytest.raises(ConfigError, match="cost epsilon"):
        replace(plan, target_epsilon="0.5")


@pytest.mark.parametrize("change", [-1, 1, 10**9])
def test_plan_refuses_a_budget_that_is_not_its_own_cost(plan, change):
    with pytest.raises(ConfigError, match="budget"):
        replace(plan, budget_units=plan.budget_units + change)


@pytest.mark.parametrize("order", ["0", "1", "-3", "1/2"])
def test_plan_refuses_an_order_at_which_releases_are_free(plan, order):
    with pytest.raises(ConfigError, match=r"order|decimal"):
        replace(plan, order=order, budget_units=0)


@pytest.mark.parametrize("delta", ["0", "1", "nan", "-1e-6"])
def test_plan_refuses_a_delta_out_of_range(plan, delta):
    with pytest.raises(ConfigError, match=r"delta|decimal"):
        replace(plan, target_delta=delta)


@pytest.mark.parametrize("stddev", [1, 99, 2**40 + 1, 10**25])
def test_plan_refuses_noise_that_the_grid_cannot_carry(plan, stddev):
    with pytest.raises(ConfigError, match=r"must lie between|out of range"):
        _with_event(plan, stddev_grid=stddev, silo_stddev_grid=stddev)


@pytest.mark.parametrize("sens", [1, 2**20 - 1, 2**20 + 1])
def test_plan_refuses_a_sensitivity_other_than_the_grid(plan, sens):
    with pytest.raises(ConfigError, match="sensitivity"):
        _with_event(plan, sens_grid=sens)


def test_plan_refuses_a_release_named_twice(plan):
    with pytest.raises(ConfigError, match="twice"):
        _with_event(plan, num=1, kind="popularity", round_num=1)


def test_plan_needs_a_positive_share_for_every_release(make_plan):
    with pytest.raises(ConfigError, match="positive share"):
        make_plan((("popularity", 0, 5), ("gram", 1, 10)))


def test_event_for_refuses_what_was_not_planned(plan):
    assert plan.event_for("gram", 2) is plan.releases[1]
    with pytest.raises(RefusalError, match="no release 'gram' in round 1"):
        plan.event_for("gram", 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("grid"),
        lambda raw: raw.update(surprise=1),
        lambda raw: raw.update(order="1/0"),
        lambda raw: raw.update(cohort=3),
        lambda raw: raw.update(catalogue_digest="\ud800"),
        lambda raw: raw["releases"][0].update(stddev_grid="many"),
    ],
)
def test_plan_text_of_another_shape_is_refused(plan, change):
    raw = json.loads(plan.to_json())
    change(raw)
    with pytest.raises(ConfigError):
        RunPlan.from_json(json.dumps(raw))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "{}"])
def test_plan_text_that_is_no_plan_is_refused(text):
    with pytest.raises(ConfigError, match="no plan"):
        RunPlan.from_json(text)


def test_canonical_json_sorts_keys_and_keeps_non_ascii():
    assert canonical_json({"b": ["ü", 1], "a": {"d": "", "c": 2}}) == (
        '{"a":{"c":2,"d":""},"b":["ü",1]}'
    )


@pytest.mark.parametrize("body", [1.0, [1.0], {"a": {"b": (2, 3.0)}}])
def test_canonical_json_refuses_floats_at_any_depth(body):
    with pytest.raises(ConfigError, match="text and integers only"):
        canonical_json(body)


def test_noise_multipliers_are_exact_fractions(plan):
    event = plan.releases[0]
    assert event.noise_multiplier == Fraction(event.stddev_grid, 2**20)
    assert event.silo_noise_multiplier == Fraction(event.silo_stddev_grid, 2**20)


@pytest.mark.parametrize(
    "change",
    [{"witnesses": True}, {"max_silos_per_customer": True}, {"schema": 3.0}, {"order": 21}],
    ids=str,
)
def test_plan_takes_no_value_that_only_equals_the_right_one(plan, change):
    with pytest.raises(ConfigError, match="must be of type"):
        replace(plan, **change)


def test_release_takes_no_value_that_only_equals_the_right_one(plan):
    with pytest.raises(ConfigError, match="steps=True must be of type int"):
        replace(plan.releases[0], steps=True)


@pytest.mark.parametrize("order", ["1e99999999", "1/0", "9" * 40, "2.5e999999999", "1_0", " 21"])
def test_plan_refuses_an_order_that_would_take_for_ever(plan, order):
    with pytest.raises(ConfigError, match="handy size"):
        replace(plan, order=order)
