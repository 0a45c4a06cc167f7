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
    "old schema": (0, {"schema": 3}, "schema"),
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
    writer.add(type="GENESIS", schema=4, silo_id=writer.silo, key=writer.key.vkey)


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
