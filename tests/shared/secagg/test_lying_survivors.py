"""A coordinator that lies about survivors: refused, or it learns nothing by it."""

from dataclasses import replace
from itertools import combinations

import pytest
from curious_coordinator import refused, released_round, sees_all, shared_round
from masked_federation import Federation

from fondaco.shared.errors import RoundError
from fondaco.shared.privacy.plan import Cohort
from fondaco.shared.secagg import assembly
from fondaco.shared.secagg.messages import Certificate, participants_digest

VICTIM = "silo-000"


def test_honest_round_tells_the_sum_and_nothing_else(six):
    """The yardstick itself: before the answers nothing, afterwards one sum."""
    whole = released_round(six)
    curious = sees_all(whole)
    assert curious.learns() == []
    whole.confirm().unmask()
    curious.told(*whole.answers.values())
    assert curious.learns() == [set(six.names)]


def test_yardstick_sees_what_both_shares_of_a_silo_would_tell(six):
    whole = released_round(six)
    curious = sees_all(whole).bribe(*(whole.silos[name] for name in six.names[1:]))
    assert {VICTIM} in curious.learns()


def test_two_survivors_sets_find_no_two_certificates(six):
    """Both shares of one silo: half is told it lives, half that it fell silent."""
    whole = released_round(six)
    for victim_lives, names in ((True, six.names[:3]), (False, six.names[3:])):
        told = whole.name_survivors(*(six.names if victim_lives else six.names[1:]))
        said = [whole.silos[name].confirm(told) for name in names]
        with refused("too-few"):
            assembly.certificate(told, said, six.terms)
        made = Certificate(
            survivors=told, confirmations={each.silo_id: each.signature for each in said}
        )
        for name in names:
            with refused("too-few"):
                whole.silos[name].unmask(made)


def test_both_shares_of_one_silo_are_never_told(six):
    """After the answer for a set with the victim none is given for one without it."""
    whole = released_round(six).confirm()
    name = "silo-001"
    first = whole.silos[name].unmask(whole.certificate)
    assert VICTIM in first.self_shares
    assert first.mask_shares == {}
    without = six.certificate(six.names[1:], whole.name_survivors(*six.names[1:]))
    with refused("no-session"):
        whole.silos[name].unmask(without)


def test_no_answer_holds_both_shares_whoever_fell_silent(six):
    for silent in six.names:
        whole = six.round().until("unmask", release=[silent])
        for said in whole.answers.values():
            assert not set(said.self_shares) & set(said.mask_shares)
            assert set(said.mask_shares) == {silent}
            assert silent not in said.self_shares
            assert said.silo_id not in said.self_shares


@pytest.mark.parametrize("t_collude", [0, 1])
def test_bribed_silos_do_not_get_both_shares_together(t_collude):
    """They sign for both sets; however honest silos are split, one certificate comes about."""
    federation = Federation.of(6, t_collude=t_collude)
    names, bribed = federation.names, federation.names[6 - t_collude :]
    honest = names[1 : 6 - t_collude]
    for size in range(len(honest) + 1):
        for told_alive in combinations(honest, size):
            sides = [{VICTIM, *told_alive, *bribed}, {*set(honest) - {*told_alive}, *bribed}]
            enough = [len(side) >= federation.terms.cohort.threshold for side in sides]
            assert not all(enough)


@pytest.mark.parametrize("n", [3, 4, 5, 10, 30, 100, 101, 1000])
def test_no_two_certificates_without_an_honest_silo_in_both(n):
    for t_collude in range(n):
        cohort = Cohort(n_silos=n, n_min=n, t_collude=t_collude)
        if cohort.may_mask:
            assert 2 * cohort.threshold - n > t_collude
            assert cohort.threshold > t_collude + 1


def test_silo_that_lives_and_is_called_silent_stays_masked(six):
    """Claims a drop-out that did not happen: the victim refuses, its own mask stays."""
    whole = released_round(six)
    curious = sees_all(whole)
    lie = whole.name_survivors(*six.names[1:])
    with refused("not-a-survivor"):
        whole.silos[VICTIM].confirm(lie)
    certificate = six.certificate(six.names[1:], lie)
    for name in six.names[1:]:
        whole.silos[name].confirm(lie)
        curious.told(whole.silos[name].unmask(certificate))
    assert curious.learns() == [set(six.names[1:])]


def test_bribed_silos_add_nothing_but_their_own_numbers(six):
    """With t_collude silos' secrets the others are still seen as one sum."""
    whole = released_round(six)
    curious = sees_all(whole).bribe(whole.silos["silo-005"])
    whole.confirm().unmask()
    curious.told(*whole.answers.values())
    inside = [set(names) - {"silo-005"} for names in curious.learns()]
    assert [names for names in inside if names] == [set(six.names[:5])]


def test_fewer_survivors_than_the_plan_needs_are_refused(six):
    whole = released_round(six)
    for names in ([VICTIM], six.names[:4]):
        with refused("too-few"):
            whole.silos[VICTIM].confirm(whole.name_survivors(*names))


def test_survivor_that_never_took_part_is_refused(six):
    whole = six.round().until("release", share=["silo-005"])
    with refused("unknown-silo"):
        whole.silos[VICTIM].confirm(whole.name_survivors(*six.names))


def test_survivor_whose_numbers_never_came_is_refused(six):
    """Its share of the noise would be missing."""
    whole = six.round().until("release", release=["silo-005"])
    lie = whole.name_survivors(*six.names)
    for signature in (b"", bytes(64), lie.silos["silo-001"]):
        forged = replace(lie, silos={**lie.silos, "silo-005": signature})
        with refused("bad-signature"):
            whole.silos[VICTIM].confirm(forged)


def test_survivor_that_masked_among_others_is_refused(six):
    """Told of other participants, it shares no mask with those who are to confirm."""
    whole = six.round().until("share")
    five = [said for said in whole.known.shares.values() if said.silo_id != "silo-005"]
    other = whole.fork().agree(five)
    for name in six.names:
        told = (other if name == "silo-001" else whole).deliveries()[name]
        whole.words[name] = whole.silos[name].release(told)
    with refused("bad-signature"):
        whole.silos[VICTIM].confirm(whole.name_survivors(*six.names))


@pytest.mark.parametrize("field", ["task", "roster", "participants"])
def test_survivors_of_another_attempt_are_refused(six, field):
    earlier = released_round(six, run_id="one")
    whole = released_round(six, run_id="one", attempt=2)
    mixed = replace(whole.survivors, **{field: getattr(earlier.survivors, field)})
    for survivors in (earlier.survivors, mixed):
        with refused("other-roster"):
            whole.silos[VICTIM].confirm(survivors)


def test_survivors_of_other_participants_are_refused(six):
    whole = released_round(six)
    digest = participants_digest(whole.roster.digest, tuple(six.names[:5]))
    with refused("other-roster"):
        whole.silos[VICTIM].confirm(replace(whole.survivors, participants=digest))


def test_survivors_that_change_late_are_refused(six):
    whole = released_round(six)
    whole.silos[VICTIM].confirm(whole.survivors)
    with refused("other-survivors"):
        whole.silos[VICTIM].confirm(whole.name_survivors(*six.names[:5]))


def test_survivors_that_change_in_the_certificate_are_refused(six):
    whole = released_round(six).confirm()
    other = six.certificate(six.names[:5], whole.name_survivors(*six.names[:5]))
    with refused("other-survivors"):
        whole.silos[VICTIM].unmask(other)


def test_confirmation_before_taking_part_is_refused(six):
    whole = released_round(six)
    early = six.round().until("share").silos[VICTIM]
    with refused("out-of-order"):
        early.confirm(whole.survivors)


def test_unmasking_before_taking_part_is_refused(six):
    whole = released_round(six).confirm()
    late = shared_round(six).silos[VICTIM]
    with refused("out-of-order"):
        late.unmask(whole.certificate)


def test_certificate_of_the_others_is_enough_but_not_without_this_silo(six):
    """Whoever was not asked to confirm answers all the same, if it is among the survivors."""
    whole = released_round(six).confirm([VICTIM])
    without = six.certificate(six.names[1:], whole.name_survivors(*six.names[1:]))
    with refused("not-a-survivor"):
        whole.silos[VICTIM].unmask(without)
    said = whole.silos[VICTIM].unmask(whole.certificate)
    assert said.mask_shares == {}


@pytest.mark.parametrize("signers", [0, 1, 4])
def test_unmasking_without_enough_confirmations_is_refused(six, signers):
    """Threshold 0, threshold 1, one too few."""
    whole = released_round(six).confirm()
    few = six.certificate(six.names[:signers], whole.survivors)
    with refused("too-few"):
        whole.silos[VICTIM].unmask(few)


def test_certificate_of_silos_that_fell_silent_is_refused(six):
    whole = six.round().until("confirm", release=["silo-005"])
    forged = six.certificate(six.names, whole.survivors)
    with refused("unknown-silo"):
        whole.silos[VICTIM].unmask(forged)


def test_certificate_with_forged_signatures_is_refused(six):
    whole = released_round(six).confirm()
    signatures = whole.certificate.confirmations
    one = signatures["silo-001"]
    for forged in (dict.fromkeys(signatures, one), dict.fromkeys(signatures, bytes(64))):
        with refused("bad-signature"):
            whole.silos[VICTIM].unmask(replace(whole.certificate, confirmations=forged))


def test_certificate_of_an_earlier_attempt_is_refused(six):
    earlier = released_round(six, run_id="one").confirm()
    whole = released_round(six, run_id="one", attempt=2).confirm()
    with refused("other-roster"):
        whole.silos[VICTIM].unmask(earlier.certificate)
    old = replace(whole.certificate, confirmations=earlier.certificate.confirmations)
    with refused("bad-signature"):
        whole.silos[VICTIM].unmask(old)


def test_agreement_is_no_confirmation(six):
    """Signatures say what they are over: those under a roster do not certify survivors."""
    whole = released_round(six).confirm()
    agreements = {name: said.signature for name, said in whole.known.shares.items()}
    with refused("bad-signature"):
        whole.silos[VICTIM].unmask(replace(whole.certificate, confirmations=agreements))


def test_second_answer_is_refused_whoever_is_said_to_survive(six):
    whole = released_round(six).confirm().unmask()
    other = six.certificate(six.names[:5], whole.name_survivors(*six.names[:5]))
    for certificate in (whole.certificate, other):
        with refused("no-session"):
            whole.silos[VICTIM].unmask(certificate)


def test_nothing_at_all_is_said_after_the_answer(six):
    whole = released_round(six).confirm().unmask()
    silo = whole.silos[VICTIM]
    steps = (
        lambda: silo.share(whole.roster),
        lambda: silo.release(whole.deliveries()[VICTIM]),
        lambda: silo.confirm(whole.survivors),
    )
    for step in steps:
        with refused("no-session"):
            step()


def test_too_few_answers_unmask_nothing(six):
    """One more would be enough."""
    need = six.terms.share_threshold
    whole = six.round().until("unmask", release=["silo-005"], unmask=six.names[: 6 - need])
    curious = sees_all(whole).told(*whole.answers.values())
    assert curious.learns() == []
    with pytest.raises(RoundError, match=f"{need - 1} sound shares of silo-000 came, {need} are"):
        whole.total()


def test_answers_of_two_attempts_do_not_add_up(six):
    """Seeds of another attempt unmask nothing of this one."""
    earlier = released_round(six, run_id="one").confirm().unmask()
    whole = released_round(six, run_id="one", attempt=2)
    assert sees_all(whole).told(*earlier.answers.values()).learns() == []


def test_hybrid_survives_the_same_yardstick():
    federation = Federation.of(4, hybrid=True)
    whole = federation.round().until("confirm", release=["silo-001"])
    curious = sees_all(whole)
    assert curious.learns() == []
    curious.told(*whole.unmask().answers.values())
    assert curious.learns() == [{"silo-000", "silo-002", "silo-003"}]
