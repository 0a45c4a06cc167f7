"""Silos that lie at a step of a masked round: left out and named, or the sum stands."""

import re
from dataclasses import replace

import numpy as np
import pytest

from fondaco.shared import codec
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import RoundError
from fondaco.shared.records import MaskedUpdate
from fondaco.shared.secagg.messages import Confirmation, Hello, Released, Shares, Unmasking

LIAR, OTHER = "silo-3", "silo-2"
SHAPES = Shapes(
    n_items=5, head=4, update_dims={"popularity": 5}, n_parameters={}, fusion=(0, 0), ring_bits=64
)


def _said(kind, **changes):
    """Return a fault: the honest message with other fields, not signed anew."""

    def fault(parts):
        message = kind.from_bytes(parts.masking)
        return parts._replace(masking=replace(message, **changes).to_bytes())

    return fault


def _share(change):
    """Return a fault: what a silo shares, changed by a function of it."""

    def fault(parts):
        message = change(Shares.from_bytes(parts.masking))
        return parts._replace(masking=message.to_bytes())

    return fault


def _update(**changes):
    def fault(parts):
        update = codec.decode(parts.record, MaskedUpdate, SHAPES)
        return parts._replace(record=codec.encode(replace(update, **changes)))

    return fault


def _parcels(make):
    return lambda said: replace(said, parcels={s: make(p) for s, p in said.parcels.items()})


LIES = {
    "another's name": ("hello", _said(Hello, silo_id=OTHER), "another silo"),
    "key of low order": ("hello", _said(Hello, mask_key=bytes(32)), "did not sign"),
    "no signature": ("hello", _said(Hello, signature=b""), "did not sign"),
    "empty": ("hello", lambda parts: parts._replace(masking=b""), "CodecError|must be"),
    "another roster": ("share", _said(Shares, roster="sha256:0"), "another roster"),
    "nothing for anybody": ("share", _said(Shares, parcels={}), "share with all"),
    "long parcels": ("share", _share(_parcels(lambda p: p + bytes(1 << 16))), "bytes to"),
    "no digests": ("share", _said(Shares, self_digests={}), "digests"),
    "digests of one": ("share", _said(Shares, mask_digests={OTHER: bytes(32)}), "digests"),
    "no agreement": ("share", _said(Shares, signature=bytes(64)), "did not sign"),
    "for another silo": ("share", _said(Shares, silo_id=OTHER), "another silo"),
    "another plan's": ("release", _update(plan_digest="sha256:other"), "another silo, plan"),
    "another round's": ("release", _update(round_num=2), "another silo, plan"),
    "another attempt's": ("release", _update(attempt=2), "another silo, plan"),
    "another silo's": ("release", _update(silo_id=OTHER), "another silo, plan"),
    "shorter": ("release", _update(values=np.zeros(3, dtype=np.uint64)), "CodecError"),
    "numbers not in its ledger": (
        "release",
        _update(values=np.zeros(5, dtype=np.uint64)),
        "ledger",
    ),
    "no word for its masks": ("release", lambda parts: parts._replace(masking=b""), "JSON"),
    "masks not signed": ("release", _said(Released, signature=bytes(64)), "did not sign"),
}
AFTER = {
    "confirmation of others": ("confirm", _said(Confirmation, signature=bytes(64))),
    "another's confirmation": ("confirm", _said(Confirmation, silo_id=OTHER)),
    "wrong own seed": ("unmask", _said(Unmasking, self_seed=bytes(16))),
    "no own seed": ("unmask", _said(Unmasking, self_seed=b"")),
    "long own seed": ("unmask", _said(Unmasking, self_seed=bytes(1 << 12))),
    "wrong shares": ("unmask", _said(Unmasking, self_shares=dict.fromkeys("abc", bytes(16)))),
    "another's answer": ("unmask", _said(Unmasking, silo_id=OTHER)),
    "nothing": ("unmask", lambda parts: parts._replace(masking=b"{}")),
}


@pytest.mark.parametrize("name", LIES)
def test_liar_is_left_out_and_named_before_the_sum(make_world, name):
    step, lie, why = LIES[name]
    world = make_world(5, 4)
    world.fails(step, lie, LIAR)
    result = world.collect()
    assert result.total.tolist() == world.expected(result).tolist()
    (dropped,) = result.dropped
    assert dropped.silo_id == LIAR
    assert re.search(why, dropped.reason), dropped.reason
    assert LIAR not in result.present


@pytest.mark.parametrize("name", AFTER)
def test_lie_after_the_release_changes_no_sum(make_world, name):
    step, lie = AFTER[name]
    world = make_world(5, 4)
    world.fails(step, lie, LIAR)
    result = world.collect()
    assert result.total.tolist() == world.expected(result).tolist()
    assert len(result.present) == 5


@pytest.mark.parametrize("name", ["confirmation of others", "another's answer", "nothing"])
def test_lies_of_too_many_give_no_sum_and_the_truth_does_later(make_world, name):
    step, lie = AFTER[name]
    world = make_world(5, 4)
    world.fails(step, lie, *({*world.silos} - {OTHER}))
    with pytest.raises(RoundError, match=r"popularity, attempt 1: .*silo-3: "):
        world.collect()
    world.faults.clear()
    result = world.collect()
    assert result.total.tolist() == world.expected(result).tolist()
    assert {len(keys) for keys in world.keys("DEBIT").values()} == {1}


@pytest.mark.parametrize("key_agreement", ["x25519", "x25519-mlkem768"])
def test_parcels_nobody_can_open_spoil_no_sum_while_their_sender_lives(make_world, key_agreement):
    """With the hybrid, those who cannot open them do not release: one silo stops a round."""
    world = make_world(5, 4, key_agreement=key_agreement)
    world.fails("share", _share(_parcels(lambda parcel: bytes(len(parcel)))), LIAR)
    if key_agreement == "x25519":
        result = world.collect()
        assert result.total.tolist() == world.expected(result).tolist()
        assert len(result.present) == 5
    else:
        with pytest.raises(RoundError, match=r"bad-parcel|no sound secret"):
            world.collect()


def test_parcels_nobody_can_open_from_a_silo_that_dies_give_a_named_error(make_world):
    world = make_world(5, 4)
    world.fails("share", _share(_parcels(lambda parcel: bytes(len(parcel)))), LIAR)
    world.fails("release", "dead", LIAR, later=True)
    with pytest.raises(RoundError, match=LIAR):
        world.collect()
    assert world.keys("DEBIT")["north"] == [("popularity", 1)]


def test_masked_numbers_that_are_garbage_are_not_told_from_others(make_world):
    """What masks hide cannot be checked: the sum is wrong, but no ledger shows such a release."""
    world = make_world(5, 4)
    world.fails("release", _update(values=np.full(5, 7, dtype=np.uint64)), LIAR)
    result = world.collect()
    assert LIAR not in result.present
    assert "ledger" in result.dropped[0].reason


def test_word_of_another_silo_is_not_taken_for_ones_own(make_world):
    """Two colluding silos: one hands in the other's signature."""
    world, heard = make_world(5, 4), {}

    def keep(parts):
        heard["word"] = parts.masking
        return parts

    world.fails("release", keep, OTHER)
    world.fails("release", lambda parts: parts._replace(masking=heard["word"]), LIAR)
    result = world.collect()
    assert result.total.tolist() == world.expected(result).tolist()
    assert [drop.silo_id for drop in result.dropped] == [LIAR]


def test_two_silos_with_one_key_are_both_left_out(make_world):
    """A copied key cannot be told from its original, so neither is in the roster."""
    world = make_world(10, 8)
    world.fails("hello", _signed_copy(world), LIAR)
    result = world.collect()
    assert result.total.tolist() == world.expected(result).tolist()
    assert {drop.silo_id for drop in result.dropped} == {LIAR, OTHER}


def _signed_copy(world):
    """Return a fault: a hello with the key of OTHER, signed well."""

    def fault(parts):
        hello = Hello.from_bytes(parts.masking)
        others = world.agents[OTHER]._masked._load().session.hello
        hello = replace(hello, mask_key=others.mask_key)
        signature = world.agents[LIAR]._identity.sign(hello.signed_bytes())
        return parts._replace(masking=replace(hello, signature=signature).to_bytes())

    return fault
