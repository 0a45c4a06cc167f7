"""Whatever a coordinator asks that no honest one would: refused, with a code in the ledger."""

from dataclasses import replace

import numpy as np
import pytest
from masked_silos import ME, Asked

from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.secagg import assembly
from fondaco.shared.secagg.messages import Delivery

OTHER = "sha256:" + "0" * 64
STRANGER = Identity.seeded(9, key_name("stranger"))
PEER, PEER_TOO = "silo-2", "silo-3"


def _finishes(asked):
    """Hold that the honest order still goes to its end, under one debit."""
    silos = asked.silos
    asked.until("unmask")
    kinds = [r["type"] for r in silos.records("DEBIT", "RELEASE", "UNMASK")]
    assert kinds == ["DEBIT", "RELEASE", "UNMASK"]


# ---- hello ----

TASKS = {
    "another plan's": ({"plan_digest": OTHER}, "other-plan"),
    "a round that is not planned": ({"round_num": 7}, "not-in-plan"),
    "an unknown kind": ({"kind": "metrics"}, "not-in-plan"),
    "over": ({"expires": 1_700_000_000}, "late"),
    "without an end": ({"expires": 2**52}, "late"),
}


@pytest.mark.parametrize("name", TASKS)
def test_task_that_is_none_is_refused(silos, name):
    changes, code = TASKS[name]
    asked = Asked(silos, changes=changes)
    silos.refused(code, lambda: asked.ask("hello", asked.task))
    _finishes(silos.round())


def test_second_task_for_the_same_round_is_refused(silos):
    """Else one attempt would have two sets of keys."""
    asked = silos.round().until("hello")
    other = silos.round()
    silos.refused("other-request", lambda: other.ask("hello", other.task))
    _finishes(asked)


def test_repeated_round_is_refused_for_good(silos):
    silos.round().until("unmask")
    silos.round("gram").until("hello")  # the session of the first is gone
    again = silos.round()
    silos.refused("no-session", lambda: again.ask("hello", again.task))


@pytest.mark.parametrize("step", ["share", "confirm", "unmask"])
def test_step_without_a_session_is_refused(silos, step):
    whole = silos.round().until("unmask")
    blobs = {"share": whole.roster, "confirm": whole.survivors, "unmask": whole.certificate}
    silos.me._masked.forget()
    silos.refused("no-session", lambda: whole.ask(step, blobs[step]))


def test_release_without_a_session_is_refused_and_costs_nothing(silos):
    asked = silos.round().until("share")
    silos.me._masked.forget()
    silos.refused("no-session", lambda: asked.release(asked.deliveries[ME]))
    assert silos.records("DEBIT") == []


# ---- rosters ----


def _rosters(asked):
    low = bytes(32)
    spoiled, peer = asked.hellos[PEER], asked.hellos[PEER_TOO]
    return {
        "of one silo": (asked.roster_with(without={*asked.hellos} - {ME}), "too-few"),
        "of too few": (asked.roster_with(without=(PEER, PEER_TOO)), "too-few"),
        "without this silo": (asked.roster_with(without=(ME,)), "other-roster"),
        "with other keys for this silo": (asked.roster_with(asked.hello_of(ME)), "other-roster"),
        "with a stranger": (
            asked.roster_with(asked.hello_of("stranger", STRANGER)),
            "unknown-silo",
        ),
        "with a stranger in a silo's name": (
            asked.roster_with(asked.hello_of(PEER, STRANGER)),
            "bad-signature",
        ),
        "with a key put in by the coordinator": (
            asked.roster_with(replace(spoiled, mask_key=peer.share_key)),
            "bad-signature",
        ),
        "with one key for two": (
            asked.roster_with(asked.hello_of(PEER, mask_key=peer.mask_key)),
            "duplicate-key",
        ),
        "with one key for both purposes": (
            asked.roster_with(
                asked.hello_of(PEER, mask_key=spoiled.mask_key, share_key=spoiled.mask_key)
            ),
            "duplicate-key",
        ),
        "with a share key of low order": (
            asked.roster_with(asked.hello_of(PEER, share_key=low)),
            "bad-key",
        ),
        "with a key in another spelling": (
            asked.roster_with(asked.hello_of(PEER, mask_key=peer.mask_key[:31] + b"\xff")),
            "bad-key",
        ),
        "with short keys": (asked.roster_with(asked.hello_of(PEER, mask_key=b"k")), "bad-key"),
        "in another order": (
            replace(asked.roster, hellos=asked.roster.hellos[::-1]),
            "other-roster",
        ),
        "naming a silo twice": (
            replace(asked.roster, hellos=(*asked.roster.hellos, asked.roster.hellos[-1])),
            "other-roster",
        ),
        "of another task": (_other_hello(asked), "other-request"),
    }


def _other_hello(asked):
    hello = asked.hello_of(PEER, task=replace(asked.task, request=OTHER))
    return asked.roster_with(hello)


@pytest.mark.parametrize("num", range(15))
def test_roster_that_is_none_is_refused(silos, num):
    asked = silos.round().until("hello")
    rosters = _rosters(asked)
    assert len(rosters) == 15
    roster, code = list(rosters.values())[num]
    silos.refused(code, lambda: asked.ask("share", roster))
    _finishes(asked)


def test_second_roster_is_refused(silos):
    asked = silos.round().until("share")
    other = asked.roster_with(without=(PEER,))
    silos.refused("other-roster", lambda: asked.ask("share", other))
    _finishes(asked)


def test_mask_key_of_low_order_is_refused_before_anything_is_paid(silos):
    asked = silos.round().until("hello")
    roster = asked.roster_with(asked.hello_of(PEER, mask_key=bytes(32)))
    asked.ask("share", roster)
    signed = {name: asked.agree(name, roster) for name in asked.hellos}
    silos.refused("bad-key", lambda: asked.release(Delivery(participants=signed, parcels={})))
    assert silos.records("DEBIT") == []


# ---- deliveries ----


def _deliveries(asked):
    whole = asked.deliveries[ME]
    signed = whole.participants

    def among(*names, **more):
        return replace(whole, participants={**{n: signed[n] for n in names}, **more})

    everybody = list(signed)
    return {
        "to a single silo": (among(ME), "too-few"),
        "to too few": (among(*everybody[:3]), "too-few"),
        "to a stranger too": (among(*everybody, stranger=STRANGER.sign(b"x")), "unknown-silo"),
        "unsigned": (among(*everybody, **{PEER: bytes(64)}), "bad-signature"),
        "signed for another roster": (
            among(*everybody, **{PEER: asked.agree(PEER, asked.roster_with(without=(PEER_TOO,)))}),
            "bad-signature",
        ),
        "without this silo": (among(*(n for n in everybody if n != ME)), "not-a-survivor"),
    }


@pytest.mark.parametrize("num", range(6))
def test_delivery_that_is_none_is_refused_and_costs_nothing(silos, num):
    asked = silos.round().until("share")
    delivery, code = list(_deliveries(asked).values())[num]
    silos.refused(code, lambda: asked.release(delivery))
    assert silos.records("DEBIT") == []
    _finishes(asked)


def test_release_before_the_roster_is_refused(silos):
    asked = silos.round().until("hello")
    signed = {name: asked.agree(name) for name in asked.hellos}
    silos.refused("out-of-order", lambda: asked.release(Delivery(participants=signed, parcels={})))
    _finishes(asked)


def test_release_of_another_model_than_was_agreed_to_is_refused(silos):
    asked = silos.round("gram").until("share")
    other = silos.request("gram", head=np.array([3, 2, 1, 0]))
    silos.refused("other-request", lambda: asked.release(asked.deliveries[ME], blob=other))
    assert silos.records("DEBIT") == []


def test_other_participants_after_a_release_are_refused(silos):
    """Who is told twice would mask twice: the difference of the two would stand bare."""
    asked = silos.round().until("release")
    fewer = replace(
        asked.deliveries[ME],
        participants={n: s for n, s in asked.deliveries[ME].participants.items() if n != PEER},
    )
    silos.refused("other-request", lambda: asked.release(fewer))
    _finishes(asked)


# ---- survivors ----


def _survivors(asked):
    survivors = asked.survivors
    return {
        "a single silo": (
            asked.survivors_without(*(n for n in survivors.silos if n != ME)),
            "too-few",
        ),
        "too few": (asked.survivors_without(PEER, PEER_TOO), "too-few"),
        "without this silo": (asked.survivors_without(ME), "not-a-survivor"),
        "with a stranger": (
            replace(survivors, silos={**survivors.silos, "stranger": bytes(64)}),
            "unknown-silo",
        ),
        "that did not release": (
            replace(survivors, silos={**survivors.silos, PEER: bytes(64)}),
            "bad-signature",
        ),
        "that masked among others": (
            replace(survivors, silos={**survivors.silos, PEER: asked.word(PEER, OTHER)}),
            "bad-signature",
        ),
        "of other participants": (replace(survivors, participants=OTHER), "other-roster"),
        "of another roster": (replace(survivors, roster=OTHER), "other-roster"),
    }


@pytest.mark.parametrize("step", ["confirm", "unmask"])
@pytest.mark.parametrize("num", range(8))
def test_survivors_that_are_none_are_refused(silos, num, step):
    asked = silos.round().until("release")
    survivors, code = list(_survivors(asked).values())[num]
    signers = [name for name in survivors.silos if name in asked.hellos]
    message = survivors if step == "confirm" else asked.certified(survivors, signers)
    silos.refused(code, lambda: asked.ask(step, message))
    _finishes(asked)


def test_contradicting_survivors_are_refused(silos):
    """Two sums that differ by one silo's numbers would give those away."""
    asked = silos.round().until("confirm")
    other = asked.survivors_without(PEER)
    silos.refused("other-survivors", lambda: asked.ask("confirm", other))
    _finishes(asked)


def test_both_shares_of_one_silo_are_never_given(silos):
    """First its own mask's as a survivor, then its mask key's as a silent one; both ways round."""
    asked = silos.round().until("confirm")
    without = asked.certified(asked.survivors_without(PEER))
    silos.refused("other-survivors", lambda: asked.ask("unmask", without))
    asked._unmask([ME])
    assert PEER in asked.unmasked[ME].self_shares
    assert asked.unmasked[ME].mask_shares == {}
    again = asked.certified(asked.survivors_without(PEER_TOO))
    silos.refused_as_before("other-survivors", lambda: asked.ask("unmask", again))
    assert len(silos.records("UNMASK")) == 1


def test_shares_of_a_silent_silo_are_never_those_of_its_own_mask(silos):
    asked = silos.round().until("release")
    certificate = asked.certified(asked.survivors_without(PEER))
    asked.certificate = certificate
    asked._unmask([ME])
    said = asked.unmasked[ME]
    assert set(said.mask_shares) == {PEER}
    assert PEER not in said.self_shares
    other = asked.certified(asked.survivors)
    silos.refused("other-survivors", lambda: asked.ask("unmask", other))


@pytest.mark.parametrize("signers", [(), (ME,), (ME, PEER, PEER_TOO)])
def test_certificate_of_too_few_is_refused(silos, signers):
    """A threshold of one is none: the plan's holds, whatever is asked."""
    asked = silos.round().until("confirm")
    poor = asked.certified(asked.survivors, signers)
    silos.refused("too-few", lambda: asked.ask("unmask", poor))
    _finishes(asked)


def test_certificate_of_strangers_or_forgers_is_refused(silos):
    asked = silos.round().until("confirm")
    sound = asked.certificate
    forged = replace(sound, confirmations={**sound.confirmations, PEER: bytes(64)})
    silos.refused("bad-signature", lambda: asked.ask("unmask", forged))
    strange = replace(sound, confirmations={**sound.confirmations, "stranger": bytes(64)})
    silos.refused("unknown-silo", lambda: asked.ask("unmask", strange))
    _finishes(asked)


# ---- order ----


def test_confirm_and_unmask_before_the_release_are_refused(silos):
    asked = silos.round().until("share")
    words = {name: asked.word(name) for name in asked.hellos}
    asked.survivors = assembly.survivors_of(asked.known, words)
    silos.refused("out-of-order", lambda: asked.ask("confirm", asked.survivors))
    certificate = asked.certified(asked.survivors)
    silos.refused_as_before("out-of-order", lambda: asked.ask("unmask", certificate))
    assert silos.records("UNMASK") == []
    _finishes(asked)
