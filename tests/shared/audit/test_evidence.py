"""What others have seen counts: in a DEBIT, in notes, in copies; bent evidence is blamed."""

import base64
import json

import pytest

from fondaco.shared.audit.verify import verify
from fondaco.shared.errors import LedgerError


def codes(verification):
    return {finding.code for finding in verification.findings}


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
