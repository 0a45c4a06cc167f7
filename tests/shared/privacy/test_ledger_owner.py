"""What owners hold over their ledger: approval, expiry, limits, witnesses and notes."""

import json
from dataclasses import asdict, replace

import pytest

from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.chain.notes import Checkpoint, cosign
from fondaco.shared.errors import BudgetError, LedgerError, RefusalError
from fondaco.shared.privacy import ledger as ledger_module
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.privacy.policy import Policy
from fondaco.shared.privacy.witnessed import check_newest

OWNER = Identity.seeded(0, key_name("north"))
SERVER = Identity.seeded(0, COORDINATOR)
ASKED = "sha256:asked"
LIMITS = Policy(
    epsilon_per_year="6", epsilon_if_masking_broke="50", target_delta="1e-6", order="8/1"
)


def _types(ledger):
    return [record["type"] for record in ledger.records()]


def _refused(ledger, code, *, witnessed="", attempt=1, match="."):
    with pytest.raises(RefusalError, match=match) as caught:
        ledger.debit("popularity", 1, attempt, request=ASKED, witnessed=witnessed)
    assert (caught.value.code, ledger.records()[-1]["code"]) == (code, code)


def _pay(ledger, **more):
    return ledger.debit("popularity", 1, request=ASKED, **more)


def _expire(monkeypatch):
    monkeypatch.setattr(RunPlan, "allows", lambda self, today: False)


# ---- approval and expiry ----


def test_plan_is_approved_once_and_in_full(ledger, plan):
    ledger.approve(plan)
    (record,) = (r for r in ledger.records() if r["type"] == "PLAN")
    assert record["plan"] == json.loads(json.dumps(asdict(plan)))
    assert (record["approved"], record["reason"]) == (1, "")
    assert record["epsilon"] == f"{plan.epsilons()['epsilon']:.6f}"


def test_owner_who_left_pays_for_nothing_until_back(ledger, plan):
    ledger.approve(plan, approved=0, reason="sold")
    _refused(ledger, "left", match="left: sold")
    ledger.approve(plan)
    assert _pay(ledger).seq == 6
    assert _types(ledger).count("PLAN") == 3


def test_plan_approved_last_is_the_only_one(ledger, path, plan):
    other = replace(plan, public={"split": "another"})
    ledger.approve(other)
    _refused(ledger, "not-approved")
    with Ledger(path, OWNER, other) as opened:
        assert _pay(opened).plan_digest == other.digest


@pytest.mark.parametrize("known", [False, True])
def test_ledger_without_a_plan_or_its_approval_pays_nothing(path, plan, known):
    with Ledger.open_or_create(path, "north", OWNER) as ledger:
        assert _types(ledger) == ["GENESIS"]
    with Ledger(path, OWNER, plan if known else None) as ledger:
        _refused(ledger, "not-approved")


def test_deployed_plan_waits_for_its_owner(path, make_plan, make_roster):
    deployed = make_plan(trust="silo", **make_roster(mode="deploy"))
    with Ledger.open_or_create(path, "north", OWNER, deployed, LIMITS) as ledger:
        assert _types(ledger) == ["GENESIS"]
        ledger.approve(deployed)
        assert ledger.records()[-1]["claims"] == "as planned"


def test_expired_plan_pays_for_nothing(path, plan):
    past = replace(plan, expires="2020-01-31")
    with Ledger.open_or_create(path, "north", OWNER, past) as ledger:
        _refused(ledger, "expired", match="expired after 2020-01-31")


def test_debit_is_of_no_use_after_the_last_day(ledger, monkeypatch):
    debit = _pay(ledger)
    _expire(monkeypatch)
    _refused(ledger, "expired")
    with pytest.raises(RefusalError, match="expired"):
        ledger.record_release(debit, b"blob", "test")
    assert "RELEASE" not in _types(ledger)


def test_bytes_that_were_released_may_be_sent_after_the_last_day(ledger, monkeypatch):
    debit = _pay(ledger)
    ledger.record_release(debit, b"blob", "test")
    _expire(monkeypatch)
    assert _pay(ledger).released
    ledger.record_release(debit, b"blob", "test")
    assert _types(ledger).count("RELEASE") == 1


def test_attempt_closed_since_the_debit_releases_nothing(ledger):
    debit = _pay(ledger)
    ledger.refuse("popularity", 1, 1, RefusalError("it failed", "failed"), failed=1)
    with pytest.raises(RefusalError, match="popularity of round 1 failed"):
        ledger.record_release(debit, b"blob", "test")
    assert "RELEASE" not in _types(ledger)


# ---- limits ----


def test_limits_are_in_force_once_adopted(ledger):
    assert ledger.policy() is None
    for policy in (LIMITS, LIMITS, replace(LIMITS, epsilon_per_year="5"), LIMITS):
        ledger.adopt(policy)
        assert ledger.policy() == policy
    assert _types(ledger).count("POLICY") == 3


def test_simulated_owner_sets_limits_before_approving(path, plan):
    for _ in range(2):
        with Ledger.open_or_create(path, "north", OWNER, plan, LIMITS) as ledger:
            assert _types(ledger) == ["GENESIS", "POLICY", "PLAN"]


def test_plan_beyond_the_limits_is_not_approved_but_may_be_left(ledger, plan):
    ledger.adopt(replace(LIMITS, epsilon_if_masking_broke="3"))
    with pytest.raises(RefusalError, match="masking"):
        ledger.approve(plan)
    ledger.approve(plan, approved=0)
    assert ledger.records()[-1]["approved"] == 0


def test_limits_hold_for_a_plan_approved_before_them(ledger):
    ledger.adopt(replace(LIMITS, epsilon_if_masking_broke="3"))
    _refused(ledger, "masking-cap")


def test_year_is_one_for_all_plans(ledger, path, plan):
    ledger.adopt(replace(LIMITS, epsilon_per_year="1.79"))
    for event in plan.releases:
        ledger.debit(event.kind, event.round_num, request=ASKED)
        assert ledger.records()[-1]["policy_cost"] == LIMITS.cost(event) > 0
    other = replace(plan, public={"split": "another"})
    ledger.approve(other)
    with Ledger(path, OWNER, other) as opened:
        assert opened.spent_units() == 0
        assert _pay(opened).seq == 7
        with pytest.raises(BudgetError, match="per year"):
            opened.debit("gram", 2, request=ASKED)
        assert opened.records()[-1]["code"] == "policy-budget"


def test_debit_holds_the_terms_that_it_was_paid_under(ledger, plan):
    _pay(ledger, commit="ab")
    record = ledger.records()[-1]
    assert {name: record[name] for name in ("n_min", "t_collude", "order", "grid", "budget")} == {
        "n_min": plan.cohort.n_min,
        "t_collude": plan.cohort.t_collude,
        "order": plan.order,
        "grid": plan.grid,
        "budget": plan.budget_units,
    }
    assert (record["policy_cost"], record["commit"], record["witnessed"]) == (0, "ab", "")


def test_refusal_says_what_is_left_in_epsilon(ledger):
    _pay(ledger)
    ledger.debit("gram", 2, request=ASKED)
    with pytest.raises(BudgetError, match=r"0\.00 of 1\.0 left, popularity in round 1 costs 0\.10"):
        ledger.debit("popularity", 1, 2, request=ASKED)


# ---- refusals and notes ----


def _refuse(ledger, attempt, failed=0):
    ledger.refuse("gram", 2, attempt, RefusalError("no", "code"), failed=failed)


def test_same_refusal_is_written_once(ledger):
    for attempt in (1, 1, 2, 1):
        _refuse(ledger, attempt)
    assert [r["attempt"] for r in ledger.records() if r["type"] == "REFUSAL"] == [1, 2]


def test_refusals_fill_no_disk_but_failures_still_close_their_attempt(ledger, monkeypatch):
    monkeypatch.setattr(ledger_module, "MAX_REFUSALS", 2)
    for attempt in (1, 2, 3):
        _refuse(ledger, attempt)
    assert _types(ledger).count("REFUSAL") == 2
    _refuse(ledger, 3, failed=1)
    assert ledger.records()[-1]["failed"] == 1
    with pytest.raises(RefusalError, match="new attempt"):
        ledger.debit("gram", 2, 3, request=ASKED)


@pytest.mark.parametrize(
    ("n_customers", "count"),
    [(1, "1 to 9"), (9, "1 to 9"), (10, "10 to 99"), (4321, "1000 to 9999")],
)
def test_erasure_is_noted_by_its_order_of_magnitude(ledger, n_customers, count):
    ledger.note_erasure(n_customers)
    assert ledger.records()[-1]["count"] == count


def test_cosigned_heads_are_noted_and_none_are_not(ledger):
    ledger.note_cosigned([])
    assert _types(ledger) == ["GENESIS", "PLAN"]
    head = Checkpoint(origin=key_name("south"), size=3, root=bytes(32))
    ledger.note_cosigned([head])
    assert ledger.records()[-1]["heads"] == [head.as_text()]


def test_audit_is_noted_by_the_hash_of_its_report(ledger):
    ledger.note_audit(b"", "holds", "somebody")
    record = ledger.records()[-1]
    assert record["report"].startswith("sha256:e3b0c442")
    assert (record["verdict"], record["by"]) == ("holds", "somebody")


def test_ledger_behind_its_own_head_writes_no_more(ledger):
    head = ledger.chain.head
    for note in ("", "text", ledger.chain.note()):
        check_newest(ledger.chain, note)
    longer = replace(head, size=head.size + 1)
    check_newest(ledger.chain, longer.signed_by(Identity.seeded(0, key_name("south"))))
    with pytest.raises(RefusalError, match="had 3 records and has 2") as caught:
        check_newest(ledger.chain, longer.signed_by(OWNER))
    assert caught.value.code == "behind"


# ---- witnesses ----


@pytest.fixture
def witnessed(path, plan, make_roster):
    """A ledger that pays only under a head co-signed by two of nine others."""
    with Ledger.open_or_create(path, "north", OWNER, replace(plan, **make_roster())) as opened:
        yield opened


def _cosigned(note, *signers):
    return note + "".join(cosign(note, signer, 1_700_000_000) for signer in signers)


def test_two_witnesses_and_the_coordinator_open_a_debit(witnessed, make_owner):
    two, three = make_owner("silo-2"), make_owner("silo-3")
    note = witnessed.chain.note()
    for signers in ((), (SERVER, two), (two, three), (SERVER, two, OWNER)):
        _refused(witnessed, "not-witnessed", witnessed=_cosigned(note, *signers))
    _refused(witnessed, "not-witnessed", match="no co-signed head")
    fresh = _cosigned(witnessed.chain.note(), SERVER, two, three)
    assert _pay(witnessed, witnessed=fresh)
    assert witnessed.records()[-1]["witnessed"] == fresh


def test_refusal_says_how_many_witnesses_are_missing(witnessed, make_owner):
    note = _cosigned(witnessed.chain.note(), SERVER, make_owner("silo-2"))
    _refused(witnessed, "not-witnessed", witnessed=note, match="1 of 2 witnesses")


def test_witnessed_head_must_be_this_ledgers(witnessed, make_owner):
    signers = SERVER, make_owner("silo-2"), make_owner("silo-3")
    other = replace(witnessed.chain.head, root=bytes(32)).signed_by(OWNER)
    foreign = witnessed.chain.head.signed_by(signers[1])
    for note in (other, foreign):
        _refused(witnessed, "not-witnessed", witnessed=_cosigned(note, *signers))


def test_witnessed_head_must_cover_every_release_and_need_cover_no_more(witnessed, make_owner):
    signers = SERVER, make_owner("silo-2"), make_owner("silo-3")
    first = Checkpoint(origin=OWNER.public.name, size=1, root=witnessed.chain.root_at(1))
    debit = _pay(witnessed, witnessed=_cosigned(first.signed_by(OWNER), *signers))
    before = witnessed.chain.note()
    witnessed.record_release(debit, b"blob", "test")
    after = witnessed.chain.note()
    again = _cosigned(before, *signers)
    _refused(witnessed, "not-witnessed", witnessed=again, attempt=2)
    again = _cosigned(after, *signers)
    assert witnessed.debit("popularity", 1, 2, request=ASKED, witnessed=again)


def test_silo_outside_of_the_roster_pays_for_nothing(tmp_path, plan, make_roster, make_owner):
    stranger, agreed = make_owner("stranger"), replace(plan, **make_roster())
    with Ledger.open_or_create(tmp_path / "s.db", "stranger", stranger, agreed) as ledger:
        signers = SERVER, make_owner("silo-2"), make_owner("silo-3")
        note = _cosigned(ledger.chain.note(), *signers)
        _refused(ledger, "not-witnessed", witnessed=note, match="no co-signed head")


@pytest.mark.parametrize("change", [{"seq": 2}, {"silo_id": "south"}])
def test_forged_proof_writes_nothing(ledger, change):
    debit = _pay(ledger)
    before = _types(ledger)
    with pytest.raises(LedgerError, match="no such debit"):
        ledger.record_release(replace(debit, **change), b"blob", "test")
    assert _types(ledger) == before
