"""A coordinator that lies about who takes part, or mixes up parcels: refused, or harmless."""

from dataclasses import replace

from curious_coordinator import refused, released_round, sees_all, shared_round
from masked_federation import Federation

from fondaco.shared.secagg import assembly
from fondaco.shared.secagg.keys import (
    KEM_TEXT,
    KEY,
    SEALED,
    Secrets,
    derive,
    encapsulate,
    seal,
    secret_digest,
)
from fondaco.shared.secagg.messages import Delivery
from fondaco.shared.secagg.parcels import SHARES, Route

VICTIM = "silo-000"


def test_fewer_participants_than_the_plan_needs_are_refused(six):
    whole = shared_round(six)
    told = whole.deliveries()[VICTIM]
    few = {name: told.participants[name] for name in six.names[:4]}
    with refused("too-few"):
        whole.silos[VICTIM].release(replace(told, participants=few))


def test_single_silo_cohort_is_refused(six):
    whole = shared_round(six)
    told = whole.deliveries()[VICTIM]
    alone = {VICTIM: told.participants[VICTIM]}
    with refused("too-few"):
        whole.silos[VICTIM].release(Delivery(participants=alone, parcels={}))


def test_participant_that_never_agreed_is_refused(six):
    whole = six.round().until("share", share=["silo-005"])
    told = whole.deliveries()[VICTIM]
    for signature in (b"", bytes(64), told.participants["silo-001"]):
        forged = {**told.participants, "silo-005": signature}
        with refused("bad-signature"):
            whole.silos[VICTIM].release(replace(told, participants=forged))


def test_participant_outside_of_the_roster_is_refused(six):
    whole = six.round().until("share", hello=["silo-005"])
    told = whole.deliveries()[VICTIM]
    signature = six.agreement("silo-005", whole.task, whole.roster)
    with refused("unknown-silo"):
        whole.silos[VICTIM].release(
            replace(told, participants={**told.participants, "silo-005": signature})
        )


def test_silo_that_is_no_participant_masks_nothing(six):
    whole = shared_round(six)
    told = whole.deliveries()["silo-001"]
    others = {name: told.participants[name] for name in six.names[1:]}
    with refused("not-a-survivor"):
        whole.silos[VICTIM].release(replace(told, participants=others))


def test_delivery_before_a_roster_is_refused(six):
    whole = shared_round(six)
    late = six.silo(VICTIM)
    late.hello(whole.task)
    with refused("out-of-order"):
        late.release(whole.deliveries()[VICTIM])


def test_other_participants_afterwards_are_refused(six):
    whole = released_round(six)
    told = whole.deliveries()[VICTIM]
    fewer = {name: told.participants[name] for name in six.names[:5]}
    with refused("other-roster"):
        whole.silos[VICTIM].release(replace(told, participants=fewer))


def test_delivery_of_an_earlier_attempt_is_refused(six):
    earlier = released_round(six, run_id="one")
    whole = shared_round(six, run_id="one", attempt=2)
    with refused("bad-signature"):
        whole.silos[VICTIM].release(earlier.deliveries()[VICTIM])


def test_parcels_of_an_earlier_attempt_are_as_good_as_none(six):
    earlier = released_round(six, run_id="one")
    whole = shared_round(six, run_id="one", attempt=2)
    silo, told = whole.silos[VICTIM], whole.deliveries()[VICTIM]
    silo.release(replace(told, parcels=earlier.deliveries()[VICTIM].parcels))
    assert silo.session.mask_shares == {}
    assert silo.session.self_shares == {}


def _swapped(deliveries):
    """Everybody gets the parcels of the next silo."""
    names = sorted(deliveries)
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    return {
        name: replace(deliveries[name], parcels=deliveries[following[name]].parcels)
        for name in names
    }


def test_parcels_for_somebody_else_open_for_nobody(six):
    whole = shared_round(six)
    swapped = _swapped(whole.deliveries())
    whole.deliveries = lambda: swapped
    whole.release().confirm()
    assert not any(silo.session.mask_shares for silo in whole.silos.values())
    assert whole.unmask().total().tolist() == whole.expected().tolist()


def test_parcels_of_somebody_else_open_for_nobody(six):
    """The sender is part of the key."""
    whole = shared_round(six)
    told = whole.deliveries()[VICTIM]
    turned = dict(zip(told.parcels, reversed(told.parcels.values()), strict=True))
    del turned["silo-003"]
    silo = whole.silos[VICTIM]
    silo.release(replace(told, parcels=turned))
    assert silo.session.mask_shares == {}


def test_parcels_for_somebody_else_are_refused_by_the_hybrid():
    whole = shared_round(Federation.of(3, hybrid=True))
    with refused("bad-parcel"):
        whole.silos["silo-001"].release(_swapped(whole.deliveries())["silo-001"])


def _split_view(six):
    """One half is told of all six participants, the other of five."""
    whole = shared_round(six)
    five = [said for said in whole.known.shares.values() if said.silo_id != "silo-005"]
    other = whole.fork().agree(five)
    for name in six.names:
        told = (other if name in six.names[:2] else whole).deliveries()[name]
        whole.words[name] = whole.silos[name].release(told)
    return whole, other


def test_silos_that_were_told_of_different_participants_share_no_mask(six):
    whole, other = _split_view(six)
    assert sees_all(whole).learns() == []
    signatures = {name: whole.silos[name].signature for name in six.names[:5]}
    for view in (whole, other):
        survivors = assembly.survivors_of(view.known, signatures)
        for name in six.names[:5]:
            silo = whole.silos[name]
            same = silo.session.participants == view.known.participants
            with refused("bad-signature" if same else "other-roster"):
                silo.confirm(survivors)


def _with_own_secret(whole, sender, receiver, parcel):
    """Return the parcel with a secret that the coordinator knows in the place of the sender's."""
    route = Route(task=whole.task, roster=whole.roster, sender=sender, receiver=receiver)
    secret, text = encapsulate(whole.roster.by_silo[receiver].mask_kem)
    own = Secrets.fresh(hybrid=True).mask_keys.exchange(whole.roster.by_silo[receiver].mask_key)
    for agreed in (secret, own + secret):
        sealed = seal(derive(agreed, "mask parcel", *route.context), bytes(KEY))
        forged = parcel[: KEM_TEXT + SHARES + SEALED] + text + sealed
        forged += secret_digest(bytes(KEY))
        assert len(forged) == len(parcel)
        yield forged


def test_coordinator_cannot_put_in_its_own_post_quantum_secret():
    """Recorded today, X25519 broken later: then the secret that went through ML-KEM must hold."""
    whole = shared_round(Federation.of(3, hybrid=True))
    told = whole.deliveries()["silo-002"]
    for forged in _with_own_secret(whole, "silo-000", "silo-002", told.parcels["silo-000"]):
        with refused("bad-parcel"):
            whole.silos["silo-002"].release(
                replace(told, parcels={**told.parcels, "silo-000": forged})
            )
