"""Few shares give a seed back: signatures, not shares, keep a silo's two seeds apart.

The coordinator has all that `t_collude` silos know and may sign, one short of a seed's shares.
"""

from dataclasses import replace
from itertools import combinations_with_replacement, product

import pytest
from curious_coordinator import Curious, refused
from masked_federation import Federation

from fondaco.shared.errors import RefusalError
from fondaco.shared.secagg import assembly

VICTIM = "silo-000"


def _sees_all(whole):
    return Curious(whole).saw(*(whole.silos[name] for name in whole.words))


def _inside(curious, bribed):
    """Return the sums that stand bare, without those who told their numbers themselves."""
    return [names for names in (inside - {*bribed} for inside in curious.learns()) if names]


@pytest.fixture(scope="module", params=[(5, 2), (7, 2)], ids=str)
def bribable(request):
    """As many silos collude as hold one share less than a seed takes."""
    n, t_collude = request.param
    federation = Federation.of(n, t_collude=t_collude)
    assert federation.terms.share_threshold == t_collude + 1
    return federation, federation.names[n - t_collude :]


def _asked(silo, step, message):
    """Return what an honest silo says to it, in a list; nothing if it refuses."""
    try:
        return [getattr(silo, step)(message)]
    except RefusalError:
        return []


class World:
    """One of two stories that a coordinator tells of the same round, and who has confirmed it."""

    def __init__(self, whole, survivors, bribed):
        self.survivors, self.terms = survivors, whole.terms
        signed = whole.federation.certificate(bribed, survivors).confirmations
        self.said = {name: sign for name, sign in signed.items() if name in survivors.silos}

    def confirmed_by(self, silo):
        for said in _asked(silo, "confirm", self.survivors):
            self.said[said.silo_id] = said.signature

    def certificate(self, whole):
        return whole.federation.certificate(self.said, self.survivors)


def _stories(whole, bribed, others):
    """Return survivors with the victim, and without it, perhaps of other participants."""
    return [
        World(whole, assembly.survivors_of(known, _signatures(whole, known.digest, names)), bribed)
        for known, names in ((whole.known, whole.words), (others, whole.words.keys() - {VICTIM}))
    ]


def _signatures(whole, digest, names):
    return {
        name: whole.silos[name].signature
        for name in names
        if whole.silos[name].masks.participants == digest
    }


def test_whoever_confirms_what_no_silo_loses_both_seeds(bribable):
    """All honest silos confirm one story, the other or none, then are asked for both answers."""
    federation, bribed = bribable
    whole = federation.round().until("release")
    honest = [name for name in federation.names[1:] if name not in bribed]
    told_of_both = 0
    for first, rest in product((0, 2), combinations_with_replacement((0, 1, 2), len(honest))):
        other = whole.fork()
        curious = _sees_all(other).bribe(*(other.silos[name] for name in bribed))
        stories = _stories(other, bribed, other.known)
        for name, choice in zip([VICTIM, *honest], [first, *rest], strict=True):
            for story in stories[choice : choice + 1]:
                story.confirmed_by(other.silos[name])
        answers = [
            said
            for story in reversed(stories)
            for name in (VICTIM, *honest)
            for said in _asked(other.silos[name], "unmask", story.certificate(other))
        ]
        told_of_both += bool(answers)
        inside = _inside(curious.told(*answers), bribed)
        assert inside in ([], [{VICTIM, *honest}], [{*honest}])
    assert told_of_both


def test_whoever_was_told_of_whom_no_silo_loses_both_seeds(bribable):
    """Some honest silos are told that one of them takes no part; each side has its survivors."""
    federation, bribed = bribable
    whole = federation.round().until("share")
    honest = [name for name in federation.names[1:] if name not in bribed]
    left_out = honest[-1]
    fewer = [said for name, said in whole.known.shares.items() if name != left_out]
    for n_told in range(len(honest)):
        for victim_told in (False, True):
            other = whole.fork()
            few = whole.fork().agree(fewer).known
            told = {*honest[:n_told], *([VICTIM] if victim_told else ())}
            for name in federation.names:
                known = few if name in told else other.known
                delivery = assembly.deliveries(known)[name]
                other.words[name] = other.silos[name].release(delivery)
            curious = _sees_all(other).bribe(*(other.silos[name] for name in bribed))
            stories = _stories(other, bribed, few)
            for story, name in product(stories, (VICTIM, *honest)):
                story.confirmed_by(other.silos[name])
            for story, name in product(stories, (VICTIM, *honest)):
                curious.told(*_asked(other.silos[name], "unmask", story.certificate(other)))
            assert all(len(names) > 1 for names in _inside(curious, bribed))


def test_one_colluder_more_reads_a_silo():
    """The yardstick itself: from then on shares are enough, without any lie."""
    federation = Federation.of(7, t_collude=2)
    whole = federation.round().until("release")
    for n_bribed, bare in ((2, False), (3, True)):
        bribed = federation.names[7 - n_bribed :]
        curious = _sees_all(whole).bribe(*(whole.silos[name] for name in bribed))
        assert ({VICTIM} in _inside(curious, bribed)) == bare


def test_answers_of_two_attempts_give_no_two_seeds_of_a_silo(bribable):
    """Called silent in one, alive in the next; the colluders tell what they know of both."""
    federation, bribed = bribable
    earlier = federation.round(run_id="one").until("release")
    whole = federation.round(run_id="one", attempt=2).until("release")
    earlier.survivors = earlier.name_survivors(*federation.names[1:])
    earlier.alive.remove(VICTIM)
    curious, before = _sees_all(whole), _sees_all(earlier)
    of_now, of_then = ([each.silos[name] for name in bribed] for each in (whole, earlier))
    curious.bribe(*of_then, *of_now)
    before.bribe(*of_now, *of_then)
    told = earlier.confirm().unmask().answers.values()
    now = whole.confirm().unmask().answers.values()
    assert all(VICTIM in said.mask_shares for said in told)
    assert _inside(curious.told(*told, *now), bribed) == [{*federation.names} - {*bribed}]
    assert _inside(before.told(*now, *told), bribed) == [{*federation.names[1:]} - {*bribed}]


# More silos than hold a seed


@pytest.fixture(scope="module", params=[False, True], ids=["x25519", "hybrid"])
def forty(request):
    """Forty silos that have shared their seeds among thirty each."""
    return Federation.of(40, hybrid=request.param, t_collude=4).round().until("share")


def test_only_holders_get_shares_and_all_peers_have_masks(forty):
    holders = forty.terms.holders(forty.roster)
    whole = forty.fork().release()
    for name, silo in whole.silos.items():
        assert silo.session.mask_shares.keys() == holders[name]
        assert silo.session.self_shares.keys() == holders[name]
        assert len(silo.masks.keys) == len(whole.silos)
        assert len(holders[name]) == 30


def test_parcels_of_others_given_to_one_who_holds_none_are_not_opened(forty):
    """As the coordinator may do that knows where everybody stands on the circle."""
    whole, told = forty.fork(), forty.deliveries()["silo-039"]
    holders = forty.terms.holders(forty.roster)
    stranger = min({*whole.silos} - {*holders["silo-039"], "silo-039"})
    holder = min(holders[stranger])
    meant = forty.known.shares[stranger].parcels[holder]
    some = {**told.parcels, stranger: meant + told.parcels.get(stranger, b"")}
    whole.silos["silo-039"].release(replace(told, parcels=some))
    assert stranger not in whole.silos["silo-039"].session.mask_shares


def test_shares_for_all_instead_of_holders_are_refused(forty):
    name = "silo-003"
    said = forty.known.shares[name]
    stranger = min({*forty.silos} - {*forty.terms.holders(forty.roster)[name], name})
    more = {**said.mask_digests, stranger: bytes(32)}
    with refused("bad-parcel"):
        forty.fork().agree([replace(said, mask_digests=more)])


@pytest.mark.parametrize("stage", ["release", "confirm", "unmask"])
def test_sum_is_exact_though_holders_of_a_silent_silo_are_silent_too(forty, stage):
    """All the silos that may fall silent stand next to each other."""
    near = forty.terms.holders(forty.roster)["silo-020"]
    silent = ["silo-020", *sorted(near)][: 40 - forty.federation.quorum]
    assert len(silent) > 10
    whole = forty.fork()
    for step in ("release", "confirm", "unmask"):
        getattr(whole, step)(silent if step == stage else ())
    assert whole.total().tolist() == whole.expected().tolist()
