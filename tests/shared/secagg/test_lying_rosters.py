"""A coordinator that lies about tasks, keys and who takes part: honest silos refuse.

Each test is one script; `refused` names what the silo's ledger will say.
"""

from dataclasses import replace

import pytest
from curious_coordinator import Curious, refused
from masked_federation import NOW, Federation

from fondaco.shared.errors import CodecError, ConfigError
from fondaco.shared.privacy.plan import Cohort
from fondaco.shared.secagg import assembly
from fondaco.shared.secagg.messages import MAX_ENTRIES, Delivery, Hello, Roster

P = 2**255 - 19
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER = [
    num.to_bytes(32, "little") for num in (0, 1, *ORDER_8, P - 1, P, P + 1, 2**255, 2**255 + 1)
]
"""Points whose products are all zero, in their several spellings. Source: cr.yp.to/ecdh.html."""


@pytest.fixture
def hybrid():
    return Federation.of(3, hybrid=True)


def _greeted(federation):
    return federation.round().until("hello")


def _with(roster, *hellos):
    """Return the roster with some hellos put in the place of those of the same silos."""
    changed = {**roster.by_silo, **{hello.silo_id: hello for hello in hellos}}
    return Roster(hellos=tuple(hello for _, hello in sorted(changed.items())))


def _all_refuse(whole, roster, code, *, but=()):
    for name in set(whole.silos) - set(but):
        with refused(code):
            whole.silos[name].share(roster)


def test_task_of_another_plan_is_refused(six):
    with refused("other-plan"):
        six.silo("silo-000").hello(six.task(plan_digest="sha256:other"))


def test_task_that_has_ended_is_refused(six):
    with refused("late"):
        six.silo("silo-000").hello(six.task(expires=NOW - 1))


def test_task_that_never_ends_is_refused(six):
    six.silo("silo-000").hello(six.task(expires=NOW + 24 * 3600 + 300))
    with refused("late"):
        six.silo("silo-000").hello(six.task(expires=NOW + 24 * 3600 + 301))


@pytest.mark.parametrize("stage", ["hello", "share", "release", "confirm"])
def test_no_step_is_taken_once_the_task_has_ended(six, stage):
    whole = six.round().until(stage)
    silo = whole.silos["silo-002"]
    silo.now = whole.task.expires + 1
    steps = {
        "hello": lambda: silo.share(whole.roster),
        "share": lambda: silo.release(whole.deliveries()[silo.name]),
        "release": lambda: silo.confirm(whole.survivors),
        "confirm": lambda: silo.unmask(whole.certificate),
    }
    with refused("late"):
        steps[stage]()


@pytest.mark.parametrize(
    "change",
    [
        {"request": "sha256:other model"},
        {"run_id": "another run"},
        {"kind": "popularity"},
        {"round_num": 2},
        {"attempt": 2},
        {"expires": NOW + 3601},
    ],
    ids=lambda change: next(iter(change)),
)
def test_silos_that_were_asked_different_things_share_no_roster(six, change):
    """The model inconsistency attack: one silo alone is sent a crafted model."""
    whole = _greeted(six)
    victim = six.silo("silo-003")
    hello = victim.hello(replace(whole.task, **change))
    whole.silos["silo-003"] = victim
    _all_refuse(whole, _with(whole.roster, hello), "other-request")


def test_silo_alone_with_another_model_is_among_too_few(six):
    whole = _greeted(six)
    victim = six.silo("silo-003")
    hello = victim.hello(replace(whole.task, request="sha256:other"))
    with refused("too-few"):
        victim.share(Roster(hellos=(hello,)))


def test_crafted_hello_for_another_model_is_no_roster_entry(six):
    """The coordinator rewrites the task in an honest hello, so that the victim finds company."""
    whole = _greeted(six)
    victim, task = six.silo("silo-003"), replace(whole.task, request="sha256:other")
    hello = victim.hello(task)
    forged = [replace(hello, task=task) for hello in whole.roster.hellos]
    with refused("bad-signature"):
        victim.share(_with(Roster(hellos=tuple(forged)), hello))


@pytest.mark.parametrize("field", ["mask_key", "share_key", "commitment"])
def test_substituted_keys_are_refused(six, field):
    """Man in the middle: the coordinator puts its own key into somebody's hello."""
    whole = _greeted(six)
    own = getattr(six.hello("silo-999", whole.task), field)
    forged = replace(whole.roster.by_silo["silo-001"], **{field: own})
    _all_refuse(whole, _with(whole.roster, forged), "bad-signature", but=["silo-001"])


def test_hello_signed_by_somebody_else_is_refused(six):
    whole = _greeted(six)
    forged = six.hello("silo-001", whole.task, signer="silo-002")
    _all_refuse(whole, _with(whole.roster, forged), "bad-signature", but=["silo-001"])


def test_silo_finds_other_keys_of_its_own_and_refuses(six):
    """An older hello of its own: signed, for this task, but its secrets are lost."""
    whole = _greeted(six)
    older = six.hello("silo-001", whole.task)
    with refused("other-roster"):
        whole.silos["silo-001"].share(_with(whole.roster, older))


def test_silo_that_is_left_out_refuses(six):
    whole = _greeted(six)
    others = Roster(hellos=whole.roster.hellos[1:])
    with refused("other-roster"):
        whole.silos["silo-000"].share(others)


def test_invented_silo_is_refused(six):
    whole = _greeted(six)
    invented = six.hello("silo-999", whole.task)
    _all_refuse(whole, _with(whole.roster, invented), "unknown-silo")


def test_cohort_of_invented_silos_around_one_victim_is_refused(six):
    task, victim = six.task(), six.silo("silo-000")
    hellos = [victim.hello(task), *(six.hello(f"fake-{num}", task) for num in range(5))]
    with refused("unknown-silo"):
        victim.share(Roster(hellos=tuple(sorted(hellos, key=lambda hello: hello.silo_id))))


def test_silo_that_stands_twice_is_refused(six):
    whole = _greeted(six)
    first, *rest = whole.roster.hellos
    for hellos in ((first, first, *rest[1:]), (first, first, *rest), (*rest, first)):
        with refused("other-roster"):
            whole.silos["silo-000"].share(Roster(hellos=hellos))


def test_silo_that_stands_twice_with_different_keys_is_refused(six):
    whole = _greeted(six)
    twin = six.hello("silo-005", whole.task)
    with refused("other-roster"):
        whole.silos["silo-000"].share(Roster(hellos=(*whole.roster.hellos, twin)))


@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_fewer_silos_than_the_plan_needs_are_refused(six, n):
    task = six.task()
    silos = [six.silo(name) for name in six.names[:n]]
    roster = Roster(hellos=tuple(silo.hello(task) for silo in silos))
    for silo in silos or [six.silo("silo-000")]:
        silo.hello(task) if not silo.kept else None
        with refused("too-few"):
            silo.share(roster)


def test_least_number_is_the_plans_not_the_thresholds():
    federation = Federation.of(10, n_min=9)
    whole = federation.round().until("hello", hello=federation.names[8:])
    _all_refuse(whole, whole.roster, "too-few", but=federation.names[8:])


@pytest.mark.parametrize(
    ("n_silos", "n_min", "t_collude"), [(1, 1, 0), (2, 2, 0), (3, 2, 1), (3, 3, 2), (10, 6, 1)]
)
def test_no_plan_masks_a_single_silo_or_few(n_silos, n_min, t_collude):
    with pytest.raises(ConfigError):
        Cohort(n_silos=n_silos, n_min=n_min, t_collude=t_collude).check_masked()


def test_another_roster_after_the_first_is_refused(six):
    whole = six.round().until("share")
    fewer = Roster(hellos=whole.roster.hellos[:5])
    for roster in (fewer, whole.roster):
        with refused("other-roster"):
            whole.silos["silo-000"].share(roster)


def test_roster_of_an_earlier_attempt_is_refused(six):
    earlier = six.round(run_id="one").until("share")
    whole = six.round(run_id="one", attempt=2).until("hello")
    _all_refuse(whole, earlier.roster, "other-request")


def test_hello_of_an_earlier_attempt_is_refused(six):
    earlier = six.round(run_id="one").until("share").roster.by_silo["silo-001"]
    whole = six.round(run_id="one", attempt=2).until("hello")
    _all_refuse(whole, _with(whole.roster, earlier), "other-request")


def test_key_that_comes_twice_is_refused(six):
    whole = _greeted(six)
    key = whole.roster.by_silo["silo-004"].mask_key
    for change in ({"mask_key": key}, {"share_key": key}):
        copied = six.hello("silo-005", whole.task, **change)
        _all_refuse(whole, _with(whole.roster, copied), "duplicate-key", but=["silo-005"])


def test_one_key_for_both_uses_is_refused(six):
    whole = _greeted(six)
    key = whole.roster.by_silo["silo-005"].mask_key
    twice = six.hello("silo-005", whole.task, mask_key=key, share_key=key)
    _all_refuse(whole, _with(whole.roster, twice), "duplicate-key", but=["silo-005"])


@pytest.mark.parametrize("key", LOW_ORDER, ids=lambda key: key.hex()[:8])
def test_low_order_key_for_shares_is_refused(six, key):
    whole = _greeted(six)
    weak = six.hello("silo-005", whole.task, share_key=key)
    _all_refuse(whole, _with(whole.roster, weak), "bad-key", but=["silo-005"])


@pytest.mark.parametrize("key", LOW_ORDER[:5], ids=lambda key: key.hex()[:8])
def test_low_order_key_for_masks_is_refused_before_anything_is_masked(six, key):
    whole = _greeted(six)
    weak = six.hello("silo-005", whole.task, mask_key=key)
    whole.roster = _with(whole.roster, weak)
    whole.alive = six.names[:5]
    whole.share()
    said = dict(whole.known.shares)
    said["silo-005"] = replace(
        said["silo-000"],
        silo_id="silo-005",
        parcels={},
        signature=six.agreement("silo-005", whole.task, whole.roster),
    )
    whole.known = assembly.agreed(whole.task, whole.roster, said.values(), six.terms)
    for name in six.names[:5]:
        with refused("bad-key"):
            whole.silos[name].release(whole.deliveries()[name])
        assert whole.silos[name].masks is None


def test_copied_key_in_another_spelling_is_refused(six):
    """X25519 ignores the highest bit."""
    whole = _greeted(six)
    key = whole.roster.by_silo["silo-004"].mask_key
    other = key[:31] + bytes([key[31] | 0x80])
    for change in ({"mask_key": other}, {"share_key": other}):
        copied = six.hello("silo-005", whole.task, **change)
        _all_refuse(whole, _with(whole.roster, copied), "bad-key", but=["silo-005"])
        with refused("bad-key"):
            assembly.check_greeting(copied, whole.task, six.terms)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_key_of_another_length_is_refused(six, size):
    whole = _greeted(six)
    for field in ("mask_key", "share_key", "commitment"):
        odd = six.hello("silo-005", whole.task, **{field: bytes(range(size))})
        _all_refuse(whole, _with(whole.roster, odd), "bad-key", but=["silo-005"])


@pytest.mark.parametrize("fields", [["mask_kem"], ["share_kem"], ["mask_kem", "share_kem"]])
def test_downgrade_to_plain_x25519_is_refused(hybrid, fields):
    whole = _greeted(hybrid)
    plain = hybrid.hello("silo-002", whole.task, **dict.fromkeys(fields, b""))
    _all_refuse(whole, _with(whole.roster, plain), "bad-key", but=["silo-002"])


@pytest.mark.parametrize("field", ["mask_kem", "share_kem"])
def test_malformed_post_quantum_key_is_refused(hybrid, field):
    whole = _greeted(hybrid)
    odd = hybrid.hello("silo-002", whole.task, **{field: b"\xff" * 1184})
    _all_refuse(whole, _with(whole.roster, odd), "bad-key", but=["silo-001", "silo-002"])


def test_post_quantum_keys_that_the_plan_does_not_want_are_refused(six, hybrid):
    whole = _greeted(six)
    keys = hybrid.hello("silo-002", hybrid.task())
    odd = six.hello("silo-005", whole.task, mask_kem=keys.mask_kem, share_kem=keys.share_kem)
    _all_refuse(whole, _with(whole.roster, odd), "bad-key", but=["silo-005"])


def test_changed_roster_for_one_silo_ends_at_the_participants(six):
    """Both rosters are sound, so all agree to theirs; no signature fits the other one."""
    whole = _greeted(six)
    victim, fewer = whole.silos["silo-000"], Roster(hellos=whole.roster.hellos[:5])
    of_victim = victim.share(fewer)
    others = [whole.silos[name].share(whole.roster) for name in six.names[1:]]
    signatures = {said.silo_id: said.signature for said in others[:4]}
    mixed = Delivery(participants={**signatures, "silo-000": of_victim.signature}, parcels={})
    for name in six.names[:5]:
        with refused("bad-signature"):
            whole.silos[name].release(mixed)
    whole.agree(others)
    whole.alive = six.names[1:]
    whole.release()
    assert Curious(whole).saw(*(whole.silos[name] for name in whole.alive)).learns() == []


def test_oversize_messages_are_refused_unread():
    for kind in (Hello, Roster, Delivery):
        with pytest.raises(CodecError, match="more than"):
            kind.from_bytes(b" " * (kind.max_bytes + 1))


def test_roster_of_more_silos_than_a_plan_may_have_is_refused(six):
    hello = _greeted(six).roster.hellos[0]
    blob = Roster(hellos=(hello,) * (MAX_ENTRIES + 1)).to_bytes()
    with pytest.raises(CodecError, match="at most"):
        Roster.from_bytes(blob)
