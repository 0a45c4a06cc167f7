"""Plans and numbers that no honest silo writes are findings, never a traceback."""

import pytest

POPULARITY, RELEASE = 3, 7
"""Places of records in the sound ledger."""


def codes(verification):
    return {finding.code for finding in verification.findings}


def test_plan_nobody_handed_in_is_found(kit, checked):
    other = kit.make_plan(n_items=51)
    assert codes(checked(kit.sound(), plans=[other])) == {"other-plan", "plan-missing"}


@pytest.mark.parametrize("handed_in", [False, True])
@pytest.mark.parametrize("broken", ["promise", "noise"])
def test_plan_that_breaks_its_promise_is_found(broken, handed_in, kit, checked):
    less = [kit.release("popularity"), kit.release("gram", 1, silo=2**21)]
    plan = kit.make_plan(less) if broken == "noise" else kit.make_plan(target_epsilon="0.1")
    writer = kit.Writer(plan=plan)
    writer.approve()
    found = checked(writer, plans=[plan] if handed_in else [])
    assert codes(found) == {"plan-terms"}


DEPLOYED = {"mode": "deploy", "trust": "silo", "secure_aggregation": "none", "witnesses": 2}
POOR_TERMS = {
    "shares in the clear": {"mode": "deploy", "witnesses": 2},
    "nobody watches": {**DEPLOYED, "witnesses": 0, "roster": {}, "coordinator": ""},
    "watched by colluders": {**DEPLOYED, "witnesses": 1},
    "more witnesses than others": {"witnesses": 3},
    "no coordinator": {"coordinator": ""},
    "customers of many silos": {"max_silos_per_customer": 5},
    "empty head": {"head": 0},
    "head beyond the items": {"head": 51},
    "earlier plan without releases": {"earlier_digest": "x"},
    "numbers in terms": {"public": {"users": 1}},
    "endless promise": {"target_epsilon": "1001"},
    "promise without number": {"target_epsilon": "inf"},
    "endless order": {"order": "1e99999999"},
    "large order": {"order": "100001/1"},
    "small order": {"order": "1/1"},
    "order that is one": {"order": "1.00000000000000000001"},
    "no budget": {"budget_units": 0},
}
POOR_RELEASES = {
    "steps": {"steps": 1001},
    "unprintable": {"kind": "gr\nam"},
    "noise": {"stddev": 2**40 + 1},
    "endless noise": {"stddev": 10**400},
}


def approving(kit, plan):
    writer = kit.Writer()
    body = writer.approve()
    body.update(plan=plan, plan_digest=kit.sha(kit.canonical(plan)))
    return writer


@pytest.mark.parametrize("name", POOR_TERMS)
def test_poor_terms_of_a_plan_are_found(name, kit, checked):
    plan = {**kit.make_plan(), **POOR_TERMS[name]}
    assert "plan-terms" in codes(checked(approving(kit, plan)))


@pytest.mark.parametrize("name", POOR_RELEASES)
def test_poor_release_of_a_plan_is_found(name, kit, checked):
    plan = {**kit.make_plan(), "releases": [kit.release(**POOR_RELEASES[name])]}
    found = codes(checked(approving(kit, plan)))
    assert found & {"plan-terms", "spelling"}


@pytest.mark.parametrize("true", [True, False])
def test_plan_that_forgets_what_was_charged_before_is_found(true, kit, checked):
    writer = kit.Writer()
    writer.approve()
    first = writer.plan
    earlier = first["releases"] if true else [kit.release("gram", 1, stddev=2**30)]
    plan = kit.make_plan(
        earlier=earlier, earlier_digest=kit.sha(kit.canonical(first)), target_epsilon="9.000000"
    )
    writer.approve(plan)
    assert codes(checked(writer)) == (set() if true else {"plan-terms"})


def test_deployed_plan_with_its_witnesses_holds(kit, checked):
    writer = kit.Writer(plan=kit.make_plan(**DEPLOYED))
    writer.approve()
    assert codes(checked(writer)) == set()


@pytest.mark.parametrize("order", ["1e99999999", "0/1", "1/0", "200000/1", "-8/1", "8_0/1"])
def test_order_of_a_policy_that_is_no_order_is_found(order, kit, checked):
    writer = kit.sound()
    writer.bodies[1]["policy"]["order"] = order
    assert "policy" in codes(checked(writer))


@pytest.mark.parametrize("stamp", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"])
@pytest.mark.parametrize("place", [0, POPULARITY, RELEASE])
def test_time_beyond_reason_is_found(place, stamp, kit, checked):
    writer = kit.sound()
    writer.bodies[place]["ts"] = stamp
    assert "fields" in codes(checked(writer))


def test_integer_of_thousands_of_digits_is_found(kit, checked):
    writer = kit.sound()
    writer.bodies[POPULARITY]["cost"] = 9 * 10**4299
    assert {"spelling", "fields"} <= codes(checked(writer))


def test_claim_on_sound_noise_in_deployment_needs_the_systems_generator(kit, checked):
    plan = kit.make_plan(mode="deploy", trust="silo", secure_aggregation="none")
    assert "rng" in codes(checked(kit.sound(plan=plan)))
