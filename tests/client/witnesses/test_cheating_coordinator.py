"""A coordinator that shows notes without true witnesses gets only refusals."""

import base64
from dataclasses import replace

import pytest
from witnessed_federation import SERVER

from fondaco.shared.chain.keys import Identity
from fondaco.shared.chain.notes import cosign, parse_note
from fondaco.shared.chain.witness import Call
from fondaco.shared.errors import RefusalError


@pytest.fixture
def signed(federation, make_owner):
    """North after its first round: its present head, signed by nobody else yet; an older note."""
    coordinator = federation.coordinator()
    cohort = coordinator.roll_call()
    coordinator.witness(cohort)
    old = Call.from_bytes(coordinator._book.call("north")).note
    federation.collect(coordinator, cohort, 1)
    with federation.ledger() as ledger:
        return ledger.chain.note(), old


def _cosigned(note, *signers):
    return note + "".join(cosign(note, signer, 1_700_000_000) for signer in signers)


def test_enough_witnesses_open_the_next_round(federation, signed, make_owner):
    note = _cosigned(signed[0], SERVER, make_owner("silo-2"), make_owner("silo-4"))
    assert federation.agents["north"].run_round(federation.request(2), note)
    assert federation.debits()[-1] == ("gram", 1)


def _forgeries(note, old, make_owner):
    """Notes that a cheating coordinator might show: name -> note."""
    two, three = make_owner("silo-2"), make_owner("silo-3")
    north, stranger = make_owner("north"), Identity.generate("fondaco/stranger")
    fake = Identity.generate(three.public.name)
    head = parse_note(note)[0]
    other_root = replace(head, root=bytes(32)).signed_by(north)
    foreign = replace(head, origin="fondaco/silo-2").signed_by(two)
    line = cosign(note, three, 5)
    blob = base64.b64decode(line.split(" ")[2])
    later = base64.b64encode(blob[:11] + b"\x06" + blob[12:]).decode()
    return {
        "none": "",
        "bare": note,
        "withheld": _cosigned(note, SERVER, two),
        "no coordinator": _cosigned(note, two, three),
        "own cosignature": _cosigned(note, SERVER, two, north),
        "twice the same": _cosigned(note, SERVER, two, two),
        "stranger": _cosigned(note, SERVER, two, stranger),
        "forged key": _cosigned(note, SERVER, two, fake),
        "coordinator as silo": _cosigned(note, SERVER, SERVER, two),
        "old": old,
        "old head, all signed": _cosigned(old.split("\u2014")[0], SERVER, two, three),
        "other root": _cosigned(other_root, SERVER, two, three),
        "other silo's": _cosigned(foreign, SERVER, two, three),
        "unsigned": _cosigned(head.text() + "\n", SERVER, two, three),
        "line of another head": _cosigned(note, SERVER, two) + cosign(old, three, 5),
        "changed time": _cosigned(note, SERVER, two) + f"\u2014 {three.public.name} {later}\n",
        "truncated line": _cosigned(note, SERVER, two) + line[:-20] + "\n",
        "text": "all is well",
        "two notes": _cosigned(note, SERVER, two, three) + "\n" + note,
    }


NAMES = [
    "none",
    "bare",
    "withheld",
    "no coordinator",
    "own cosignature",
    "twice the same",
    "stranger",
    "forged key",
    "coordinator as silo",
    "old",
    "old head, all signed",
    "other root",
    "other silo's",
    "unsigned",
    "line of another head",
    "changed time",
    "truncated line",
    "text",
    "two notes",
]


@pytest.mark.parametrize("name", NAMES)
def test_coordinator_without_true_witnesses_gets_only_refusals(
    federation, signed, make_owner, name
):
    note = _forgeries(*signed, make_owner)[name]
    agent = federation.agents["north"]
    with pytest.raises(RefusalError) as caught:
        agent.run_round(federation.request(2), note)
    assert caught.value.code == "not-witnessed"
    assert federation.records("REFUSAL")[-1]["code"] == "not-witnessed"
    assert federation.debits() == [("popularity", 1)]
    with federation.ledger() as ledger:
        fresh = _cosigned(ledger.chain.note(), SERVER, make_owner("silo-2"), make_owner("silo-3"))
    assert agent.run_round(federation.request(2), fresh)


def test_forgeries_are_all_tried(federation, signed, make_owner):
    assert list(_forgeries(*signed, make_owner)) == NAMES


def test_first_round_needs_witnesses_too(federation):
    with pytest.raises(RefusalError) as caught:
        federation.agents["north"].run_round(federation.request(1), "")
    assert caught.value.code == "not-witnessed"


def test_note_of_half_a_character_is_a_refusal(federation, signed):
    with pytest.raises(RefusalError):
        federation.agents["north"].run_round(
            federation.request(2), signed[0].replace("north", "nor\ud800", 1)
        )
