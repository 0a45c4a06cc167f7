"""Every way to bend a ledger is found, and a sound one is not blamed.

Where nothing else is said the tampering is done by somebody who holds the silo's key: all hashes
and signatures after it are right again.
"""

import base64
import json
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fondaco.shared.audit.verify import verify
from fondaco.shared.errors import LedgerError

POPULARITY, FIRST_RELEASE, GRAM, RELEASE, REFUSED, REFUSAL = 3, 4, 6, 7, 8, 9
"""Places of records in the sound ledger."""


def codes(verification):
    return {finding.code for finding in verification.findings}


def test_sound_ledger_holds(kit, checked):
    found = checked(kit.sound(), plans=[kit.make_plan()])
    assert found.findings == ()
    assert found.holds


def test_sound_ledgers_of_all_silos_hold_together(kit, checked):
    ledgers = [kit.sound(silo) for silo in kit.keys]
    notes = [ledger.note() for ledger in ledgers]
    found = checked(*ledgers, plans=[kit.make_plan()], notes=notes, copies=ledgers)
    assert found.findings == ()


def test_verifier_says_what_it_was_not_given(kit, checked):
    remarks = " ".join(checked(kit.sound()).remarks)
    assert "roll-back of the newest records cannot be excluded" in remarks
    assert "No plan was handed in" in remarks


# Changes of a record's body by the key's holder: (place, change of the body) -> code.
BENT = {
    "wrong cost": (POPULARITY, {"cost": 1}, "cost"),
    "refund": (GRAM, {"cost": -5}, "cost"),
    "wrong sum": (GRAM, {"left": 10**9}, "arithmetic"),
    "larger budget": (GRAM, {"budget": 10**12}, "arithmetic"),
    "less noise": (GRAM, {"event": {"stddev_grid": 2**21}}, "event"),
    "more rounds": (GRAM, {"round_num": 99}, "not-in-plan"),
    "another statistic": (GRAM, {"kind": "metric"}, "not-in-plan"),
    "another unit": (GRAM, {"unit": "event"}, "terms"),
    "another neighbour": (GRAM, {"adjacency": "replace-one"}, "terms"),
    "another order": (GRAM, {"order": "3/1"}, "terms"),
    "sampling claimed": (GRAM, {"sampling": "poisson"}, "terms"),
    "smaller cohort": (GRAM, {"n_min": 1}, "terms"),
    "cheaper for the policy": (GRAM, {"policy_cost": 0}, "policy-cost"),
    "unknown plan": (GRAM, {"plan_digest": f"sha256:{'0' * 64}"}, "not-approved"),
    "request without hash": (GRAM, {"request": "yes"}, "fields"),
    "count in the open": (GRAM, {"customers": 812}, "fields"),
    "witnesses left out": (GRAM, {"witnessed": ""}, "not-witnessed"),
    "debit of the future": (RELEASE, {"debit_seq": 9}, "no-debit"),
    "debit of nobody": (RELEASE, {"debit_seq": 1}, "no-debit"),
    "debit of another": (RELEASE, {"debit_seq": POPULARITY + 1}, "no-debit"),
    "seeded noise": (RELEASE, {"rng": "numpy"}, "rng"),
    "noise used again": (RELEASE, {"blob": "<first>"}, "reused-blob"),
    "nothing released": (RELEASE, {"size_bytes": 0}, "fields"),
    "float": (RELEASE, {"size_bytes": 48.0}, "spelling"),
    "huge integer": (RELEASE, {"size_bytes": 2**60}, "spelling"),
    "truth value": (REFUSAL, {"failed": True}, "spelling"),
    "unknown type": (REFUSAL, {"type": "REFUND"}, "fields"),
    "old schema": (0, {"schema": 2}, "schema"),
    "exact count": (10, {"count": "17"}, "erasure-count"),
    "another plan text": (2, {"plan": {"head": 9}}, "plan-digest"),
    "smaller epsilon": (2, {"epsilon": "0.100000"}, "plan-epsilon"),
    "claims of a simulation": (2, {"claims": "as planned"}, "plan-claims"),
    "larger yearly budget": (1, {"budget_units": 10**10}, "policy"),
    "no time": (GRAM, {"ts": [1]}, "fields"),
    "local time": (GRAM, {"ts": "2026-11-22T09:05:00+01:00"}, "fields"),
}


@pytest.mark.parametrize("name", BENT)
def test_bent_record_is_found(name, kit, checked):
    place, change, code = BENT[name]
    writer = kit.sound()
    body = writer.bodies[place]
    first = writer.bodies[FIRST_RELEASE]["blob"]
    for field, wanted in change.items():
        value = first if wanted == "<first>" else wanted
        body[field] = {**body[field], **value} if isinstance(value, dict) else value
    assert code in codes(checked(writer))


def delete(writer):
    del writer.bodies[5], writer.signers[5]


def renumber_after_delete(writer):
    """Drops a DEBIT and closes the gap: its RELEASE remains."""
    del writer.bodies[GRAM], writer.signers[GRAM]
    for seq, body in enumerate(writer.bodies, start=1):
        body["seq"] = seq


def swap(writer):
    bodies = writer.bodies
    bodies[GRAM], bodies[RELEASE] = bodies[RELEASE], bodies[GRAM]


def release_first(writer):
    swap(writer)
    for seq, body in enumerate(writer.bodies, start=1):
        body["seq"] = seq
    writer.bodies[GRAM]["debit_seq"] = RELEASE + 1


def release_twice(writer):
    writer.release(writer.bodies[POPULARITY], blob=f"sha256:{'1' * 64}")


def release_failed(writer):
    writer.release(writer.bodies[REFUSED])


def debit_twice(writer):
    writer.pay("gram", 1)


def overdraw(writer):
    for attempt in range(2, 8):
        writer.pay("gram", 1, attempt)


def overdraw_year(writer):
    writer.set_policy("0.5")
    writer.pay("gram", 3)


def back_in_time(writer):
    writer.time -= timedelta(minutes=9)
    writer.pay("gram", 3)


def after_expiry(writer):
    writer.time += timedelta(days=80)
    writer.pay("gram", 3)


def after_leaving(writer):
    writer.approve(approved=0, reason="we leave")
    writer.pay("gram", 3)


def begin_again(writer):
    writer.add(type="GENESIS", schema=3, silo_id=writer.silo, key=writer.key.vkey)


def bad_rotation(writer):
    new = type(writer.key).of(writer.silo, "new")
    writer.rotate(new, proof_by=writer.key)


def sign_for_itself(writer):
    root = base64.b64encode(writer.hashes()[-1]).decode()
    head = {"origin": f"fondaco/{writer.silo}", "size": 12, "root": root}
    writer.add(type="COSIGN", heads=[head])


def sign_older_head(writer):
    head = dict(writer.bodies[5]["heads"][0], size=0)
    writer.add(type="COSIGN", heads=[head])


def sign_fork(writer):
    head = dict(writer.bodies[5]["heads"][0], root=base64.b64encode(bytes(32)).decode())
    writer.add(type="COSIGN", heads=[head])


REWRITTEN = {
    delete: "numbering",
    renumber_after_delete: "no-debit",
    swap: "numbering",
    release_first: "no-debit",
    release_twice: "double-release",
    release_failed: "failed-attempt",
    debit_twice: "double-debit",
    overdraw: "over-budget",
    overdraw_year: "policy-budget",
    back_in_time: "clock",
    after_expiry: "expired",
    after_leaving: "withdrawn",
    begin_again: "genesis",
    bad_rotation: "keyrot",
    sign_for_itself: "cosign",
    sign_older_head: "cosign",
    sign_fork: "cosign",
}


@pytest.mark.parametrize("tamper", REWRITTEN, ids=lambda t: t.__name__)
def test_rewritten_ledger_is_found(tamper, kit, checked):
    writer = kit.sound()
    tamper(writer)
    assert REWRITTEN[tamper] in codes(checked(writer))


def test_debit_without_an_approved_plan_is_found(kit, checked):
    writer = kit.Writer()
    writer.pay("popularity", 1)
    assert "not-approved" in codes(checked(writer))


def test_debit_under_an_earlier_plan_is_found(kit, checked):
    writer = kit.sound()
    first = writer.plan
    writer.approve(kit.make_plan(n_items=51))
    writer.plan = first
    writer.pay("gram", 3)
    assert "other-plan" in codes(checked(writer))


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


# Tampering by somebody without the key: lines are edited, nothing is signed again.
def edit(lines):
    lines[RELEASE] = lines[RELEASE].replace('"size_bytes":48', '"size_bytes":49')


def drop(lines):
    del lines[5]


def reorder(lines):
    lines[5], lines[RELEASE] = lines[RELEASE], lines[5]


def cut_the_beginning(lines):
    del lines[0]


def add_spaces(lines):
    lines[5] = json.dumps(json.loads(lines[5]))


def swap_signatures(lines):
    one, other = json.loads(lines[5]), json.loads(lines[6])
    one["sig"] = other["sig"]
    lines[5] = json.dumps(one, sort_keys=True, separators=(",", ":"))


EDITED = {
    edit: "hash",
    drop: "link",
    reorder: "link",
    cut_the_beginning: "genesis",
    add_spaces: "spelling",
    swap_signatures: "signature",
}


@pytest.mark.parametrize("tamper", EDITED, ids=lambda t: t.__name__)
def test_edited_lines_are_found(tamper, kit, checked):
    lines = kit.sound().lines()
    tamper(lines)
    assert EDITED[tamper] in codes(checked(lines))


def test_ledger_signed_again_by_another_key_is_found(kit, checked):
    thief = kit.Signer.of("north", "thief")
    writer = kit.Writer(key=thief)
    writer.approve()
    assert "key" in codes(checked(writer))


def test_key_swapped_in_genesis_is_found(kit, checked):
    writer = kit.sound()
    writer.bodies[0]["key"] = kit.Signer.of("north", "thief").vkey
    assert {"signature", "key"} <= codes(checked(writer))


def test_rotated_key_signs_on(kit, checked):
    writer = kit.sound()
    writer.rotate(kit.Signer.of("north", "new"))
    writer.pay("gram", 3)
    assert codes(checked(writer)) == set()


def test_old_key_signs_no_more(kit, checked):
    writer = kit.sound()
    old = writer.key
    writer.rotate(kit.Signer.of("north", "new"))
    writer.key = old
    writer.pay("gram", 3)
    assert "signature" in codes(checked(writer))


def foreign(kit, writer):
    return writer.note(by=[kit.Signer.of("stranger")])


def forged(kit, writer):
    note = writer.note()
    line = kit.keys["south"].cosign_line("another text\n")
    head, _, tail = note.partition("\n\n")
    own, _, central = tail.splitlines(keepends=True)
    return f"{head}\n\n{own}{line}{central}"


def of_itself(kit, writer):
    return writer.note(by=[writer.key])


def of_nobody(kit, writer):
    return writer.note(by=[])


def without_coordinator(kit, writer):
    return writer.note(coordinator=None)


def without_owner(kit, writer):
    return writer.note(owner=kit.keys["south"])


def too_old(kit, writer):
    return writer.note(3)


def of_another_chain(kit, writer):
    return writer.note(root=bytes(32))


def of_another_ledger(kit, writer):
    return kit.sound("east").note(by=[kit.keys["south"]])


def of_the_future(kit, writer):
    return writer.note(time=1_900_000_000)


NOTES = {
    foreign: "not-witnessed",
    forged: "cosignature",
    of_itself: "not-witnessed",
    of_nobody: "not-witnessed",
    without_coordinator: "not-witnessed",
    without_owner: "not-witnessed",
    too_old: "old-witness",
    of_another_chain: "witnessed-other",
    of_another_ledger: "witnessed-other",
    of_the_future: "cosigned-later",
}


@pytest.mark.parametrize("make", NOTES, ids=lambda t: t.__name__)
def test_debit_with_a_poor_note_is_found(make, kit, checked):
    writer = kit.sound()
    writer.pay("gram", 3, witnessed=make(kit, writer))
    assert NOTES[make] in codes(checked(writer))


def shortened(kit):
    writer = kit.sound()
    del writer.bodies[8:], writer.signers[8:]
    return writer


def forked(kit):
    writer = shortened(kit)
    for _ in range(6):
        writer.add(type="ERASURE", count="1 to 9")
    return writer


@pytest.mark.parametrize(("bend", "code"), [(shortened, "rolled-back"), (forked, "forked")])
def test_roll_back_and_fork_are_found(bend, code, kit, checked):
    honest, bent = kit.sound(), bend(kit)
    assert codes(checked(bent)) == set(), "nobody can tell from the ledger alone"
    assert code in codes(checked(bent, notes=[honest.note()]))
    assert code in codes(checked(bent, copies=[honest]))
    assert code in codes(checked(bent, honest))
    witness = kit.sound("south")
    root = base64.b64encode(honest.hashes()[-1]).decode()
    witness.add(type="COSIGN", heads=[{"origin": "fondaco/north", "size": 12, "root": root}])
    assert code in codes(checked(bent, witness))


def test_older_copy_and_older_note_are_no_findings(kit, checked):
    honest = kit.sound()
    found = checked(honest, copies=[shortened(kit)], notes=[honest.note(5)])
    assert found.findings == ()


def test_note_signed_by_strangers_only_is_no_evidence(kit, checked):
    bent = shortened(kit)
    stranger = kit.Signer.of("stranger")
    note = kit.sound().note(owner=stranger, by=[stranger], coordinator=None)
    assert codes(checked(bent, notes=[note])) == {"unknown-note"}


def origin_edited(note):
    return note.replace("fondaco/north\n", "fondaco/nort\n", 1)


def names_edited(note):
    return note.replace("\u2014 fondaco", "\u2014 fondacx")


def witness_edited(note):
    return note.replace("fondaco/north\n12", "fondaco/nort\n13", 1)


@pytest.mark.parametrize("edit", [origin_edited, names_edited, witness_edited])
def test_note_that_proves_nothing_any_more_is_an_error(edit, kit, checked):
    bent = edit(kit.sound().note())
    assert not checked(shortened(kit), notes=[bent]).holds
    assert not checked(shortened(kit), notes=[bent], plans=[kit.make_plan()]).holds


def signature_edited(lines):
    last = json.loads(lines[-1])
    last["sig"] = last["sig"][:4] + ("B" if last["sig"][4] == "A" else "A") + last["sig"][5:]
    lines[-1] = json.dumps(last, sort_keys=True, separators=(",", ":"))


def silo_edited(lines):
    lines[0] = lines[0].replace('"silo_id":"north"', '"silo_id":"nortx"')


@pytest.mark.parametrize("edit", [signature_edited, silo_edited])
def test_copy_that_proves_nothing_any_more_is_an_error(edit, kit, checked):
    lines = kit.sound().lines()
    edit(lines)
    found = checked(shortened(kit), copies=[lines])
    assert codes(found) == {"bad-copy"}
    assert not found.holds


def test_evidence_about_ledgers_that_are_not_here_is_a_warning(kit, checked):
    other = kit.sound("south")
    found = checked(kit.sound(), notes=[other.note()], copies=[other])
    assert codes(found) == {"absent-ledger"}
    assert found.holds


def test_forged_note_about_an_absent_ledger_is_an_error(kit, checked):
    note = forged(kit, kit.sound("east"))
    assert "cosignature" in codes(checked(kit.sound(), notes=[note]))


@pytest.mark.parametrize("kept", [11, 12])
def test_torn_end_of_a_copy_is_cut_and_of_a_ledger_is_unreadable(kept, kit, checked, tmp_path):
    lines = kit.sound().lines()
    text = "".join(f"{line}\n" for line in lines)[: -1 if kept == len(lines) else -50]
    (tmp_path / "copy.jsonl").write_text(text)
    (tmp_path / "sound.jsonl").write_text("".join(f"{line}\n" for line in lines))

    def check(ledger, *copies):
        return verify([tmp_path / ledger], [], [tmp_path / c for c in copies], lambda *_: None)

    found = check("sound.jsonl", "copy.jsonl")
    assert found.holds
    assert codes(found) == ({"torn-copy"} if kept < len(lines) else set())
    assert "rolled-back" in codes(checked(lines[: kept - 1], copies=[text.splitlines()[:kept]]))
    if kept < len(lines):
        with pytest.raises(LedgerError, match="line 12"):
            check("copy.jsonl")


def test_silo_that_went_on_to_a_later_plan_is_only_remarked(kit, checked):
    one, other = kit.sound(), kit.sound("south")
    other.approve(kit.make_plan(n_items=51))
    found = checked(one, other)
    assert found.holds
    assert codes(found) == {"later-plan"}


def test_silos_with_different_plans_are_found(kit, checked):
    other = kit.sound("south", plan=kit.make_plan(n_items=51))
    assert "other-plan" in codes(checked(kit.sound(), other))


LINES = {}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_edited_byte_is_found_or_unreadable(data, kit, checked, tmp_path):
    lines = LINES.setdefault("sound", [line.encode() for line in kit.sound().lines()])
    num = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.integers(0, len(lines[num]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != lines[num][at]))
    bent = [*lines]
    bent[num] = lines[num][:at] + bytes([byte]) + lines[num][at + 1 :]
    path = tmp_path / "bent.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in bent))
    try:
        found = verify([path], [], [], lambda *_: None)
    except LedgerError:
        return
    assert not found.holds
