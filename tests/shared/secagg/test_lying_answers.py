"""A silo that lies when sums are unmasked: refused, or the others' sum is exact."""

from dataclasses import replace

import numpy as np
import pytest
from curious_coordinator import refused
from masked_federation import Federation

from fondaco.shared.errors import RefusalError, RoundError
from fondaco.shared.secagg import assembly
from fondaco.shared.secagg.keys import SEED
from fondaco.shared.secagg.parcels import parcel_size

LIAR = "silo-003"
SIZE = parcel_size(hybrid=False, upward=True, holds=True)


# Confirmations and answers


def test_confirmation_of_other_survivors_is_refused(eight, shared):
    whole = shared.fork().release()
    fewer = whole.name_survivors(*eight.names[:7])
    other = whole.silos[LIAR].confirm(fewer)
    for said in (other, replace(other, silo_id="silo-001"), replace(other, signature=b"")):
        with refused("bad-signature"):
            assembly.check_confirmation(said, whole.survivors, eight.terms)


def test_confirmation_of_a_stranger_is_refused(eight, shared):
    whole = shared.fork().release()
    said = replace(whole.silos[LIAR].confirm(whole.survivors), silo_id="silo-999")
    with refused("unknown-silo"):
        assembly.check_confirmation(said, whole.survivors, eight.terms)


def test_confirmation_of_a_silo_that_fell_silent_makes_no_certificate(eight, shared):
    whole = shared.fork().release([LIAR])
    said = [whole.silos[name].confirm(whole.survivors) for name in whole.alive]
    signature = eight.certificate([LIAR], whole.survivors).confirmations[LIAR]
    late = replace(said[0], silo_id=LIAR, signature=signature)
    with refused("unknown-silo"):
        assembly.certificate(whole.survivors, [*said, late], eight.terms)


def test_silos_that_do_not_confirm_stop_nothing_until_they_are_too_many(eight, shared):
    whole = shared.fork().release()
    some = whole.fork().confirm(eight.names[:2]).unmask()
    assert some.total().tolist() == some.expected().tolist()
    with refused("too-few"):
        whole.fork().confirm(eight.names[:3])


def test_confirmation_without_an_answer_leaves_the_sum_exact(eight, shared):
    whole = shared.fork().release().confirm().unmask([LIAR, "silo-007"])
    assert whole.total().tolist() == whole.expected().tolist()


@pytest.mark.parametrize("seed", [b"", bytes(SEED), bytes(100)], ids=["none", "other", "long"])
def test_wrong_own_seed_is_replaced_by_that_of_the_shares(shared, seed):
    whole = shared.fork().release().confirm().unmask()
    whole.answers[LIAR] = replace(whole.answers[LIAR], self_seed=seed)
    assert whole.total().tolist() == whole.expected().tolist()


def test_answer_of_another_round_leaves_the_sum_exact(eight, shared):
    other = eight.round(round_num=2).until("unmask", release=["silo-001"])
    whole = shared.fork().release(["silo-001"]).confirm().unmask()
    whole.answers[LIAR] = other.answers[LIAR]
    assert whole.total().tolist() == whole.expected().tolist()


@pytest.mark.parametrize("liar", ["silo-000", "silo-003", "silo-007"])
@pytest.mark.parametrize("garbage", [b"", bytes(SEED), bytes(SEED + 1)], ids=len)
def test_garbage_answer_leaves_the_sum_exact(shared, liar, garbage):
    whole = shared.fork().release(["silo-005"]).confirm().unmask()
    said = whole.answers[liar]
    whole.answers[liar] = replace(
        said,
        self_seed=garbage,
        self_shares=dict.fromkeys([*said.self_shares, "silo-999"], garbage),
        mask_shares=dict.fromkeys([*said.mask_shares, "silo-999"], garbage),
    )
    assert whole.total().tolist() == whole.expected().tolist()


def test_too_many_garbage_answers_end_the_round_without_a_sum(shared):
    whole = shared.fork().release(["silo-005"]).confirm().unmask()
    need = whole.terms.share_threshold
    for name in sorted(whole.answers)[need - 1 :]:
        said = whole.answers[name]
        whole.answers[name] = replace(said, mask_shares={"silo-005": bytes(SEED)})
    with pytest.raises(RoundError, match=f"{need - 1} sound shares of silo-005 came, {need} are"):
        whole.total()


def test_answer_with_swapped_shares_leaves_the_sum_exact(shared):
    whole = shared.fork().release().confirm().unmask(["silo-006"])
    said = whole.answers[LIAR]
    turned = dict(zip(said.self_shares, reversed(said.self_shares.values()), strict=True))
    whole.answers[LIAR] = replace(said, self_shares=turned)
    assert whole.total().tolist() == whole.expected().tolist()


@pytest.mark.parametrize("liars", [(2, 7), (0, 1, 2, 3, 4), (1, 4, 6, 8, 9)])
def test_garbage_answers_are_left_out_while_enough_are_right(liars):
    """Ten silos, four of whose shares are needed."""
    federation = Federation.of(10)
    whole = federation.round().until("unmask", release=["silo-005"])
    for name in (federation.names[num] for num in liars):
        said = whole.answers[name]
        whole.answers[name] = replace(
            said, self_seed=b"", mask_shares={"silo-005": bytes(SEED)}, self_shares={}
        )
    assert whole.total().tolist() == whole.expected().tolist()


def test_liar_changes_the_sum_by_its_own_numbers_only(eight, shared):
    """The one lie that is left."""
    whole = shared.fork().release()
    whole.words[LIAR] = whole.words[LIAR] + np.uint64(1000)
    whole.confirm().unmask()
    assert whole.total().tolist() == (whole.expected() + 1000).tolist()


def test_honest_silos_refuse_a_liar_that_the_coordinator_let_pass(eight):
    """Silos check for themselves whatever the coordinator should have."""
    whole = eight.round().until("hello")
    forged = replace(whole.roster.by_silo[LIAR], signature=bytes(64))
    hellos = [forged if hello.silo_id == LIAR else hello for hello in whole.roster.hellos]
    for name in ("silo-000", "silo-007"):
        with pytest.raises(RefusalError):
            whole.silos[name].share(replace(whole.roster, hellos=tuple(hellos)))
