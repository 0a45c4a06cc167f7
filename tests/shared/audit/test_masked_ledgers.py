"""Masked sums: what a plan must say, what a ledger must hold, what a report may claim."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.audit.masks import mask_problems
from fondaco.shared.audit.plans import read_plan
from fondaco.shared.audit.promises import plan_problems
from fondaco.shared.audit.report import complete, report_facts
from fondaco.shared.audit.verify import verify
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import Cohort

RELEASE, UNMASK = 4, 5
"""Places of records in the sound ledger of a masked plan."""
REQUEST = f"sha256:{'0' * 64}"


def codes(verification, severity="error"):
    return {f.code for f in verification.findings if f.severity == severity}


def masked_ledger(kit, silo="north"):
    return kit.sound(silo, plan=kit.make_masked_plan())


def test_masked_ledgers_of_all_silos_hold_together(kit, checked):
    ledgers = [masked_ledger(kit, silo) for silo in kit.keys]
    found = checked(*ledgers, plans=[kit.make_masked_plan()])
    assert found.findings == ()
    assert all(len(state.masked) == len(state.unmasked) == 2 for state in found.ledgers)


def test_deployed_masked_plan_holds(kit, checked):
    plan = kit.make_masked_plan(mode="deploy", witnesses=2, key_agreement="x25519-mlkem768")
    writer = kit.Writer(plan=plan)
    writer.approve()
    assert codes(checked(writer)) == set()


BENT = {
    "sum in the clear": (RELEASE, {"masked": ""}, "unmasked"),
    "masks of nobody": (RELEASE, {"masked": "yes"}, "fields"),
    "survivors of nobody": (UNMASK, {"survivors": ""}, "fields"),
    "no answer": (UNMASK, {"answer": "sha256:0"}, "fields"),
    "answer to another round": (UNMASK, {"round_num": 2}, "early-unmask"),
    "answer to another plan": (UNMASK, {"plan_digest": REQUEST}, "early-unmask"),
    "answer with a secret": (UNMASK, {"seed": "ab"}, "fields"),
    "no word on masks": (RELEASE, {"masked": None}, "fields"),
}


@pytest.mark.parametrize("name", BENT)
def test_bent_record_of_a_masked_round_is_found(name, kit, checked):
    place, change, code = BENT[name]
    writer = masked_ledger(kit)
    writer.bodies[place].update(change)
    if change.get("masked", "") is None:
        del writer.bodies[place]["masked"]
    assert code in codes(checked(writer))


def answer_twice(writer):
    writer.unmask(writer.bodies[RELEASE], survivors=REQUEST)


def answer_again(writer):
    """A retry sends the same bytes and writes nothing: a second record is a second answer."""
    writer.unmask(writer.bodies[RELEASE])


def answer_first(writer):
    writer.unmask({**writer.debit("gram", 3), "debit_seq": 1})


def answer_after_a_refusal(writer):
    writer.unmask({**writer.bodies[RELEASE], "kind": "gram", "round_num": 2, "debit_seq": 1})


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (answer_twice, "double-unmask"),
        (answer_again, "double-unmask"),
        (answer_first, "early-unmask"),
        (answer_after_a_refusal, "early-unmask"),
    ],
    ids=lambda t: getattr(t, "__name__", t),
)
def test_answer_that_unmasks_too_much_is_found(tamper, code, kit, checked):
    writer = masked_ledger(kit)
    tamper(writer)
    assert codes(checked(writer)) == {code}


def test_masks_under_a_plan_without_are_found(kit, checked):
    writer = kit.sound()
    writer.release(writer.debit("gram", 3), masked=REQUEST)
    assert codes(checked(writer)) == {"odd-masks"}


def test_answer_under_a_plan_without_masks_is_found(kit, checked):
    writer = kit.sound()
    writer.unmask(writer.bodies[RELEASE])
    assert codes(checked(writer)) == {"early-unmask"}


def test_masks_that_serve_twice_are_pointed_out(kit, checked):
    writer = masked_ledger(kit)
    again = writer.debit("gram", 3)
    writer.release(again, masked=writer.bodies[RELEASE]["masked"])
    assert codes(checked(writer), "warning") == {"reused-masks"}


@pytest.mark.parametrize(
    ("change", "severity", "code"),
    [("masked", "warning", "split-round"), ("survivors", "error", "split-sum")],
)
def test_round_that_was_split_is_pointed_out(change, severity, code, kit, checked):
    one, other = masked_ledger(kit), masked_ledger(kit, "south")
    one.pay("gram", 3)
    changes = {"masked": {}, "survivors": {}, change: {change: REQUEST}}
    other.unmask(other.release(other.debit("gram", 3), **changes["masked"]), **changes["survivors"])
    found = checked(one, other)
    assert [(f.severity, f.code) for f in found.findings] == [(severity, code)]
    assert found.holds == (severity == "warning")


POOR_MASKS = {
    "noise of each silo": ({"trust": "silo"}, "no noise"),
    "no key agreement": ({"key_agreement": ""}, "no key agreement"),
    "no ring": ({"ring_bits": 0}, "no ring"),
    "no roster": ({"roster": {}, "coordinator": "", "witnesses": 0}, "keys of 0 silos"),
    "two silos": ({"cohort": {"n_silos": 2, "n_min": 2, "t_collude": 0}}, "3 to 1000"),
    "too many silos": ({"cohort": {"n_silos": 1001, "n_min": 1001, "t_collude": 1}}, "3 to 1000"),
    "two thirds": ({"cohort": {"n_silos": 9, "n_min": 6, "t_collude": 1}}, "two different sums"),
    "many collude": ({"cohort": {"n_silos": 9, "n_min": 7, "t_collude": 5}}, "two different sums"),
    "one is honest": ({"cohort": {"n_silos": 3, "n_min": 3, "t_collude": 2}}, "1 honest silo"),
    "keys without masks": ({"secure_aggregation": "simulated"}, "key agreement or a ring"),
    "nothing hidden": (
        {"secure_aggregation": "none", "key_agreement": "", "ring_bits": 0},
        "nothing hides",
    ),
    "only simulated": (
        {"secure_aggregation": "simulated", "key_agreement": "", "ring_bits": 0, "mode": "deploy"},
        "only simulated",
    ),
}


@pytest.mark.parametrize("name", POOR_MASKS)
def test_plan_whose_masks_hide_nothing_is_found(name, kit):
    changes, words = POOR_MASKS[name]
    problems = list(plan_problems(read_plan(kit.make_masked_plan(**changes))))
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize("change", [{"ring_bits": 16}, {"key_agreement": "rot13"}])
def test_masks_of_an_unknown_kind_cannot_be_read(change, kit):
    with pytest.raises(ValueError, match="expected one of"):
        read_plan(kit.make_masked_plan(**change))


@pytest.mark.parametrize(("share", "wraps"), [(75_000_000, False), (75_400_000, True)])
def test_noise_that_could_wrap_the_ring_is_found(share, wraps, kit):
    # 2^31 / 3 = 715,827,883 for each silo: 2^20 of one customer and 9.5 times its noise.
    plan = read_plan(kit.make_masked_plan([kit.release(stddev=share)]))
    assert any("wrap" in problem for problem in plan_problems(plan)) == wraps


PLANS = {}


@given(n_silos=st.integers(1, 1100), data=st.data())
def test_verifier_and_core_allow_masks_among_the_same_silos(n_silos, data, kit):
    n_min = data.draw(st.integers(1, n_silos))
    cohort = Cohort(n_silos=n_silos, n_min=n_min, t_collude=data.draw(st.integers(0, n_min - 1)))
    plan = read_plan(
        {**PLANS.setdefault(64, kit.make_masked_plan(ring_bits=64)), "cohort": asdict(cohort)}
    )
    found = [problem for problem in mask_problems(plan) if "keys of" not in problem]
    assert cohort.may_mask == (found == [])


@pytest.mark.parametrize("ring_bits", [32, 64])
def test_masked_ledger_of_a_silo_holds(ring_bits, make_plan, make_masked, owner, tmp_path):
    plan = make_plan(**make_masked(ring_bits=ring_bits))
    with Ledger.open_or_create(tmp_path / "north.db", "north", owner, plan) as ledger:
        event = plan.releases[0]
        debit = ledger.debit(event.kind, event.round_num, request=REQUEST)
        ledger.record_release(debit, b"masked", "seeded chacha20: no claim", REQUEST)
        ledger.record_unmask(event.kind, event.round_num, 1, survivors=REQUEST, answer=b"seeds")
    found = verify([tmp_path / "north.db"], [read_plan(json.loads(plan.to_json()))], [], _quiet)
    assert codes(found) == set()
    assert len(found.ledgers[0].unmasked) == 1


def _quiet(name, number):
    """Hear nothing of progress."""


def report_of(found):
    whole = complete(report_facts(found))
    plain = [text for _, texts in whole["plain"]["sections"] for text in texts]
    trust = next(a["known"] for a in whole["answers"] if "trusted" in a["question"])
    return whole, " ".join(plain), " ".join(trust)


def test_report_tells_what_masks_give_and_what_not(kit, checked):
    whole, plain, trust = report_of(checked(masked_ledger(kit)))
    assert "sums of at least 3 silos only" in plain
    assert "simulated" not in plain
    assert "A silo that sends something else" in plain
    assert "x25519" in trust
    assert "quantum computer could" in trust
    assert "2^32" in trust
    assert "2 of 2 sums left masked" in trust
    assert "Which silos took part, when, and how large" in trust
    assert whole["registry"]["secure_aggregation"]["ring_bits"] == 32


def test_report_names_epsilon_by_who_looks_on(kit, checked):
    cohort = {"n_silos": 9, "n_min": 9, "t_collude": 3}
    half = [kit.release(stddev=8 * 2**20, silo=6 * 2**20)]
    writer = kit.Writer(plan=kit.make_masked_plan(half, cohort=cohort))
    writer.approve()
    whole, plain, trust = report_of(checked(writer))
    epsilons = whole["plans"][0]["epsilons"]
    assert all(f"{epsilons[n]:.3f}" in trust for n in ("all_honest", "epsilon", "clear_shares"))
    assert (
        f"Were the silos' masking broken, epsilon would be {epsilons['clear_shares']:.2f}" in plain
    )


def test_report_says_plainly_that_masking_was_only_simulated(kit, checked):
    _, plain, trust = report_of(checked(kit.sound()))
    assert "Masking was only simulated" in plain
    assert "in the clear" in trust
    assert "coordinator can read sums" not in plain


def test_report_of_silos_that_trust_nobody_rests_on_no_masks(kit, checked):
    plan = kit.make_plan(trust="silo", secure_aggregation="none")
    _, plain, trust = report_of(checked(kit.sound(plan=plan)))
    assert "Nothing rests on secure aggregation" in trust
    assert "mask" not in plain.lower()
