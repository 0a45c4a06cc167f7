"""A silo that lies to the coordinator and to other silos: refused, or the others' sum is exact.

What no protocol can mend: a silo may lie about its own numbers.
"""

from dataclasses import replace

import pytest
from curious_coordinator import refused
from masked_federation import Federation

from fondaco.shared.errors import RoundError
from fondaco.shared.secagg import assembly, session
from fondaco.shared.secagg.keys import SEED
from fondaco.shared.secagg.messages import Shares
from fondaco.shared.secagg.parcels import parcel_size
from fondaco.shared.secagg.sharing import split

LIAR = "silo-003"
SIZE = parcel_size(hybrid=False, upward=True, holds=True)


def _refuses_greeting(federation, hello, task, code):
    with refused(code):
        assembly.check_greeting(hello, task, federation.terms)


# Hellos


def test_unsigned_hello_is_refused(eight):
    task = eight.task()
    hello = eight.hello(LIAR, task)
    for signature in (b"", bytes(64), hello.signature[::-1]):
        _refuses_greeting(eight, replace(hello, signature=signature), task, "bad-signature")


@pytest.mark.parametrize("field", ["mask_key", "share_key", "commitment"])
def test_hello_that_was_changed_after_its_signature_is_refused(eight, field):
    task = eight.task()
    hello = replace(eight.hello(LIAR, task), **{field: bytes(range(32))})
    _refuses_greeting(eight, hello, task, "bad-signature")


def test_hello_in_somebody_elses_name_is_refused(eight):
    task = eight.task()
    _refuses_greeting(eight, eight.hello("silo-001", task, signer=LIAR), task, "bad-signature")


def test_hello_of_a_stranger_is_refused(eight):
    task = eight.task()
    _refuses_greeting(eight, eight.hello("silo-999", task), task, "unknown-silo")


def test_hello_for_another_task_is_refused(eight):
    task = eight.task()
    for change in ({"attempt": 2}, {"request": "sha256:other"}, {"expires": task.expires + 1}):
        hello = eight.hello(LIAR, replace(task, **change))
        _refuses_greeting(eight, hello, task, "other-request")


@pytest.mark.parametrize("field", ["mask_key", "share_key"])
def test_hello_with_a_low_order_key_is_refused(eight, field):
    task = eight.task()
    for key in (bytes(32), bytes([1, *bytes(31)])):
        _refuses_greeting(eight, eight.hello(LIAR, task, **{field: key}), task, "bad-key")


def test_hello_without_the_plans_post_quantum_keys_is_refused():
    federation = Federation.of(3, hybrid=True)
    task = federation.task()
    for field in ("mask_kem", "share_kem"):
        hello = federation.hello("silo-001", task, **{field: b""})
        _refuses_greeting(federation, hello, task, "bad-key")


@pytest.mark.parametrize("field", ["mask_kem", "share_kem"])
def test_hello_with_a_malformed_post_quantum_key_is_refused(field):
    """Every other silo would refuse the whole roster."""
    federation = Federation.of(3, hybrid=True)
    task = federation.task()
    hello = federation.hello("silo-001", task, **{field: b"\xff" * 1184})
    _refuses_greeting(federation, hello, task, "bad-key")


def test_copied_keys_cost_both_owners_their_place_and_the_others_nothing(eight):
    """Who copied whom cannot be told."""
    whole = eight.round().until("hello")
    key = whole.roster.by_silo["silo-001"].mask_key
    for change in ({"mask_key": key}, {"share_key": key}):
        thief = eight.hello(LIAR, whole.task, **change)
        others = [hello for hello in whole.roster.hellos if hello.silo_id != LIAR]
        other = whole.fork()
        other.roster = assembly.make_roster([*others, thief])
        assert set(eight.names) - set(other.roster.by_silo) == {LIAR, "silo-001"}
        for step in ("share", "release", "confirm", "unmask"):
            getattr(other, step)((LIAR, "silo-001"))
        assert other.total().tolist() == other.expected().tolist()


def test_key_with_both_uses_costs_its_owner_its_place(eight):
    whole = eight.round().until("hello")
    key = whole.roster.by_silo[LIAR].mask_key
    twice = eight.hello(LIAR, whole.task, mask_key=key, share_key=key)
    hellos = [twice if hello.silo_id == LIAR else hello for hello in whole.roster.hellos]
    assert LIAR not in assembly.make_roster(hellos).by_silo


# Shares


def _shares_of_all(whole, **changed):
    """Return everybody's shares, the liar's changed."""
    said = dict(whole.known.shares)
    said[LIAR] = replace(said[LIAR], **changed)
    return list(said.values())


def test_shares_without_some_neighbours_are_refused(shared):
    parcels = dict(shared.known.shares[LIAR].parcels)
    del parcels["silo-001"]
    with refused("bad-parcel"):
        shared.fork().agree(_shares_of_all(shared, parcels=parcels))


def test_shares_for_strangers_or_oneself_are_refused(shared):
    parcels = shared.known.shares[LIAR].parcels
    for name in (LIAR, "silo-999"):
        with refused("bad-parcel"):
            shared.fork().agree(_shares_of_all(shared, parcels={**parcels, name: b"x"}))


def test_shares_that_are_not_signed_are_refused(shared):
    other = shared.known.shares["silo-001"].signature
    for signature in (b"", bytes(64), other):
        with refused("bad-signature"):
            shared.fork().agree(_shares_of_all(shared, signature=signature))


def test_shares_in_somebody_elses_name_are_refused(shared):
    forged = replace(shared.known.shares[LIAR], silo_id="silo-001")
    with refused("bad-signature"):
        assembly.check_shares(forged, shared.task, shared.roster, shared.terms)
    stranger = replace(forged, silo_id="silo-999")
    with refused("other-roster"):
        assembly.check_shares(stranger, shared.task, shared.roster, shared.terms)


def test_shares_of_another_round_are_refused(eight, shared):
    other = eight.round(round_num=2).until("share").known.shares[LIAR]
    mixed = replace(other, roster=shared.roster.digest)
    for said, code in ((other, "other-roster"), (mixed, "bad-signature")):
        with refused(code):
            assembly.check_shares(said, shared.task, shared.roster, shared.terms)


def _with_parcels(shared, parcels):
    other = shared.fork()
    return other.agree(_shares_of_all(shared, parcels=parcels))


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1, 12_000_000])
def test_parcels_of_another_size_are_refused(shared, size):
    parcels = {**shared.known.shares[LIAR].parcels, "silo-001": bytes(size)}
    with refused("bad-parcel"):
        _with_parcels(shared, parcels)


def test_garbage_parcels_leave_the_sum_exact(shared):
    """While their sender is there nobody needs them; somebody else may even fall silent."""
    garbage = dict.fromkeys(shared.known.shares[LIAR].parcels, bytes(SIZE))
    whole = _with_parcels(shared, garbage)
    whole.release(["silo-001"]).confirm().unmask()
    assert whole.total().tolist() == whole.expected().tolist()


def test_garbage_parcels_of_a_silent_silo_end_the_round(shared):
    garbage = dict.fromkeys(shared.known.shares[LIAR].parcels, bytes(SIZE))
    whole = _with_parcels(shared, garbage)
    whole.release([LIAR]).confirm().unmask()
    with pytest.raises(RoundError, match="0 sound shares of silo-003 came"):
        whole.total()


def _with_wrong_shares(monkeypatch, whole, wrong):
    """Let the liar share out other secrets than its own, in well-formed parcels."""

    def lie(secret, threshold, n_holders):
        right = split(secret, threshold, n_holders)
        other = split(bytes(SEED), threshold, n_holders)
        return [other[num] if num < wrong else part for num, part in enumerate(right)]

    whole = whole.federation.round().until("hello")
    said = []
    for name in whole.alive:
        monkeypatch.setattr(session, "split", lie if name == LIAR else split)
        said.append(whole.silos[name].share(whole.roster))
    return whole.agree(said)


def test_wrong_shares_of_a_living_silo_leave_the_sum_exact(monkeypatch, shared):
    whole = _with_wrong_shares(monkeypatch, shared, 8)
    whole.release(["silo-001"]).confirm().unmask()
    assert whole.total().tolist() == whole.expected().tolist()


@pytest.mark.parametrize("stage", ["release", "unmask"])
def test_wrong_shares_of_a_silent_silo_end_the_round(monkeypatch, shared, stage):
    whole = _with_wrong_shares(monkeypatch, shared, 8)
    for step in ("release", "confirm", "unmask"):
        getattr(whole, step)([LIAR] if step == stage else [])
    with pytest.raises(RoundError, match="do not fit"):
        whole.total()


def test_single_wrong_share_of_a_silent_silo_may_end_the_round(monkeypatch, shared):
    """It dealt it out itself, digest and all."""
    whole = _with_wrong_shares(monkeypatch, shared, 1)
    whole.release([LIAR]).confirm().unmask()
    with pytest.raises(RoundError, match="do not fit"):
        whole.total()


def test_shares_without_all_digests_are_refused(shared):
    digests = shared.known.shares[LIAR].mask_digests
    fewer = {name: digest for name, digest in digests.items() if name != "silo-001"}
    for wrong in (fewer, {}, {**digests, "silo-999": bytes(32)}):
        for field in ("mask_digests", "self_digests"):
            with refused("bad-parcel"):
                shared.fork().agree(_shares_of_all(shared, **{field: wrong}))


def test_wrong_digests_of_a_living_silo_leave_the_sum_exact(shared):
    wrong = dict.fromkeys(shared.known.shares[LIAR].mask_digests, bytes(32))
    said = _shares_of_all(shared, mask_digests=wrong, self_digests=wrong)
    whole = shared.fork().agree(said).release(["silo-001"]).confirm().unmask()
    assert whole.total().tolist() == whole.expected().tolist()


def test_wrong_digests_of_a_silent_silo_end_the_round(shared):
    wrong = dict.fromkeys(shared.known.shares[LIAR].mask_digests, bytes(32))
    said = _shares_of_all(shared, mask_digests=wrong, self_digests=wrong)
    whole = shared.fork().agree(said).release([LIAR]).confirm().unmask()
    with pytest.raises(RoundError, match="0 sound shares of silo-003 came"):
        whole.total()


def test_garbage_secret_for_a_common_mask_is_refused_by_its_receiver():
    """Under the hybrid a mask without it would not cancel."""
    whole = Federation.of(4, hybrid=True).round().until("share")
    parcels = {
        name: parcel[:-1] + b"x" for name, parcel in whole.known.shares["silo-001"].parcels.items()
    }
    said = dict(whole.known.shares)
    said["silo-001"] = replace(said["silo-001"], parcels=parcels)
    whole.agree(said.values())
    told = whole.deliveries()
    whole.silos["silo-000"].release(told["silo-000"])
    for name in ("silo-002", "silo-003"):
        with refused("bad-parcel"):
            whole.silos[name].release(told[name])


@pytest.mark.parametrize("silent", [[], ["silo-003"]], ids=["all answer", "one does not"])
def test_wrong_secret_for_a_common_mask_spoils_no_sum_without_a_word(monkeypatch, silent):
    """The liar is not even in the sum."""
    whole = Federation.of(4, hybrid=True).round().until("hello")
    said = []
    for name in whole.alive:
        with monkeypatch.context() as patch:
            if name == "silo-000":
                patch.setattr("fondaco.shared.secagg.parcels.post_quantum_secret", _other_secret)
            said.append(whole.silos[name].share(whole.roster))
    whole.agree(said).release(["silo-000"]).confirm().unmask(silent)
    try:
        total = whole.total()
    except RoundError:
        return
    assert total.tolist() == whole.expected().tolist()


def _other_secret(route, mask_seed):
    del route, mask_seed
    return bytes(32)


def test_silo_that_shared_with_the_wrong_name_is_not_taken_for_another(eight, shared):
    """A liar's parcels delivered as another's do not open: the sender is part of the key."""
    parcels = shared.known.shares["silo-001"].parcels
    copied = {name: parcels.get(name, bytes(SIZE)) for name in shared.known.shares[LIAR].parcels}
    whole = _with_parcels(shared, copied)
    whole.release()
    assert all(
        LIAR not in whole.silos[name].session.mask_shares for name in eight.names if name != LIAR
    )
    assert isinstance(whole.known.shares[LIAR], Shares)
