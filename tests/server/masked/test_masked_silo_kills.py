"""A silo's process dies inside of a step, alone, and a new one takes over from its files."""

from itertools import count

import pytest
from masked_world import DEAD

from fondaco.client import agent as agent_module
from fondaco.client import masking as masking_module
from fondaco.client.agent import SiloAgent
from fondaco.client.masking import MaskedSums
from fondaco.shared.privacy.ledger import Ledger

VICTIM = "silo-3"
POINTS = {
    "a session is written": (MaskedSums, "_save"),
    "a key is overwritten": (masking_module, "_shred"),
    "it pays": (Ledger, "debit"),
    "its numbers are written": (agent_module, "write_durably"),
    "its release is recorded": (Ledger, "record_release"),
    "its unmasking is recorded": (Ledger, "record_unmask"),
    "it vouches for its release": (SiloAgent, "vouch"),
    "it answers a step": (MaskedSums, "answer"),
}
DEEP = {"a session is written": 6, "it answers a step": 4}


class _KilledError(BaseException):
    """What stands for the end of a process: nobody writes anything down about it."""


def _dies(monkeypatch, world, point, when, nth):
    """Let the victim die once, at the nth call; a new process answers its next message."""
    owner, name = point
    real, calls, courier = getattr(owner, name), count(1), world.courier
    state = {"asked": "", "dead": False}

    def wrapped(*given, **options):
        mine = state["asked"] == VICTIM and not state["dead"]
        dies = mine and next(calls) == nth
        if dies and when == "before":
            raise _KilledError
        result = real(*given, **options)
        if dies:
            raise _KilledError
        return result

    def answer(message, context):
        state["asked"] = world._name(message.metadata.dst_node_id)
        try:
            return courier(message, context)
        except _KilledError:
            state["dead"] = True
            world.restart(VICTIM)
            raise RuntimeError("the silo is gone") from None
        finally:
            state["asked"] = ""

    monkeypatch.setattr(owner, name, wrapped)
    world.courier = answer
    return state


KILLS = [
    pytest.param(
        point, when, nth, id=f"{when} {name} {nth}", marks=[pytest.mark.slow] if nth > 1 else []
    )
    for name, point in POINTS.items()
    for when in ("before", "after")
    for nth in range(1, DEEP.get(name, 1) + 1)
]


@pytest.mark.parametrize(("point", "when", "nth"), KILLS)
def test_silo_killed_inside_of_a_step_spoils_no_sum_and_comes_back(
    make_world, monkeypatch, point, when, nth
):
    """Alive again it is in the next round, whatever it missed of this one."""
    world = make_world(5, 4)
    state = _dies(monkeypatch, world, point, when, nth)
    first = world.collect()
    assert first.total.tolist() == world.expected(first).tolist()
    second = world.collect("gram")
    assert second.total.tolist() == world.expected(second).tolist()
    assert len(first.present) + len(second.present) >= 9
    assert state["dead"]
    _promises(world)


@pytest.mark.parametrize(("point", "when", "nth"), KILLS)
def test_round_that_needs_the_killed_silo_goes_on_with_it(
    make_world, monkeypatch, point, when, nth
):
    world = make_world(3, 3)
    state = _dies(monkeypatch, world, point, when, nth)
    for kind in ("popularity", "gram"):
        result = _until_done(world, kind)
        attempt = max(a for k, a in world.keys("RELEASE")["north"] if k == kind)
        assert result.total.tolist() == world.expected(result, attempt).tolist()
        assert len(result.present) == 3
    assert state["dead"]
    _promises(world)
    assert {len(keys) for keys in world.keys("DEBIT").values()} == {2}  # nobody has paid twice


def _until_done(world, kind, starts=2):
    for _ in range(starts):
        try:
            return world.collect(kind)
        except Exception as error:
            last = error
    raise AssertionError(f"{kind} is stuck: {last}")


def _promises(world):
    for silo in world.silos:
        debits, releases, unmasks = (
            [(r["kind"], r["attempt"]) for r in world.records(silo, kind)]
            for kind in ("DEBIT", "RELEASE", "UNMASK")
        )
        assert len(set(unmasks)) == len(unmasks)
        assert len(set(releases)) == len(releases)
        assert set(unmasks) <= set(releases) <= set(debits)


def test_computation_that_fails_once_does_not_stop_the_round_for_a_day(make_world, monkeypatch):
    """Asked again, the silo says that this attempt is closed; the next start makes a new one."""
    world, real, calls = make_world(3, 3), agent_module.clipped_sum, count(1)

    def computed(*given):
        if next(calls) == 1:
            raise MemoryError
        return real(*given)

    monkeypatch.setattr(agent_module, "clipped_sum", computed)
    result = _until_done(world, "popularity", starts=3)
    assert len(result.present) == 3


# ---- witnesses ----


@pytest.mark.parametrize("step", ["hello", "share", "release", "confirm", "unmask", "witness"])
def test_masked_rounds_with_witnesses_go_on_without_a_silo(make_world, step):
    world = make_world(5, 4, witnesses=2)
    world.faults[step, VICTIM] = DEAD
    for kind in ("popularity", "gram"):
        result = world.collect(kind)
        assert result.total.tolist() == world.expected(result).tolist()
        assert len(result.present) == (5 if step in ("confirm", "unmask", "witness") else 4)
    world.faults.clear()
    debits = [r for silo in world.silos for r in world.records(silo, "DEBIT")]
    assert all(r["witnessed"] for r in debits)


def test_masked_rounds_with_witnesses_resume_after_all_have_died(make_world):
    world = make_world(5, 4, witnesses=2)
    world.fails("confirm", DEAD, *world.silos[1:], later=True)
    with pytest.raises(Exception, match="popularity, attempt 1"):
        world.collect()
    world.faults.clear()
    world.restart(*world.silos)
    for kind in ("popularity", "gram"):
        result = world.collect(kind)
        assert result.total.tolist() == world.expected(result).tolist()
        assert len(result.present) == 5
    assert {len(keys) for keys in world.keys("DEBIT").values()} == {2}
