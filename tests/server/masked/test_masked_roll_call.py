"""Who is in a masked round at all: themselves, once, and nobody who spoiled the one before."""

from contextlib import suppress
from dataclasses import replace

import pytest
from masked_world import DEAD, FaultyGrid

from fondaco.shared import codec
from fondaco.shared.errors import RoundError
from fondaco.shared.records import SiloStatus
from fondaco.shared.secagg.messages import Shares

IMPOSTOR, VICTIM = "north", "silo-2"


def _reasons(cohort):
    return {(drop.silo_id, drop.reason) for drop in cohort.dropped}


@pytest.mark.parametrize("proof", ["none", "own", "of an earlier roll call"])
def test_impostor_who_answers_first_is_dropped_and_its_victim_takes_part(make_world, proof):
    """The impostor knows all that the victim ever said, and is asked before it."""
    world, said = make_world(5, 4), {}
    world.fails("status", lambda parts: said.setdefault("victim", parts), VICTIM)
    world.coordinator().roll_call()

    def pose(parts):
        old = said["victim"]
        masking = {"none": b"", "own": parts.masking}.get(proof, old.masking)
        return old._replace(masking=masking)

    world.faults.clear()
    world.fails("status", pose, IMPOSTOR)
    cohort = world.coordinator().roll_call()
    assert cohort.silos[1001] == VICTIM
    assert sorted(cohort.silos.values()) == sorted(world.silos[1:])
    why = f"calls itself '{VICTIM}', did not sign with its pinned key"
    assert _reasons(cohort) == {("node 1000", why)}
    result = world.collect()
    assert result.present == tuple(sorted(world.silos[1:]))
    assert result.total.tolist() == world.expected(result).tolist()


def test_silo_with_two_nodes_takes_part_once(make_world):
    world = make_world(5, 4)
    world.silos.append(VICTIM)  # the sixth node is the second silo's
    world.grid = FaultyGrid(world)
    cohort = world.coordinator().roll_call()
    assert sorted(cohort.silos) == [1000, 1001, 1002, 1003, 1004]
    assert _reasons(cohort) == {("node 1005", f"{VICTIM} answered from two nodes")}
    result = world.collect()
    assert len(result.present) == 5
    assert result.total.tolist() == world.expected(result).tolist()


def test_silo_that_is_not_in_the_plan_is_dropped(make_world):
    world = make_world(5, 4)

    def pose(parts):
        shapes = codec.Shapes.of_plan(world.plan)
        status = codec.decode(parts.record, SiloStatus, shapes)
        return parts._replace(record=codec.encode(replace(status, silo_id="stranger")))

    world.fails("status", pose, "silo-5")
    cohort = world.coordinator().roll_call()
    why = "calls itself 'stranger', did not sign with its pinned key"
    assert _reasons(cohort) == {("node 1004", why)}


def test_roll_call_without_quorum_begins_no_round(make_world):
    world = make_world(5, 4)
    world.fails("status", DEAD, "silo-3", "silo-4")
    with pytest.raises(RoundError, match=r"roll call: 3 silos answered, the plan needs 4"):
        world.collect()
    assert world.journal_files == []


def test_silo_whose_seed_nobody_can_give_back_is_not_invited_again(make_world):
    """It shared out nothing and fell silent: all others have paid, once more, and not again."""
    world, spoiler = make_world(5, 4), "silo-3"

    def spoil(parts):
        return parts._replace(masking=_without_parcels(parts.masking))

    world.fails("share", spoil, spoiler)
    world.fails("release", DEAD, spoiler, later=True)
    with pytest.raises(RoundError, match=f"attempt 1: .*{spoiler}"):
        world.collect()
    world.faults.clear()
    world.fails("share", spoil, spoiler)
    result = world.collect()
    assert result.present == tuple(sorted({*world.silos} - {spoiler}))
    assert result.total.tolist() == world.expected(result, attempt=2).tolist()
    assert world.keys("DEBIT")[spoiler] == []


def _without_parcels(masking):
    said = Shares.from_bytes(masking)
    return replace(said, parcels={s: bytes(len(p)) for s, p in said.parcels.items()}).to_bytes()


def test_hybrid_silo_whose_parcels_nobody_can_open_does_not_stop_the_round_for_a_day(make_world):
    """Higher silos refuse to mask without its secrets; a new attempt without it would do."""
    world, spoiler = make_world(5, 4, key_agreement="x25519-mlkem768"), "north"

    def spoil(parts):
        return parts._replace(masking=_without_parcels(parts.masking))

    world.fails("share", spoil, spoiler)
    for _ in range(2):
        with suppress(RoundError):
            world.collect()
    result = world.collect()
    assert result.present == tuple(sorted({*world.silos} - {spoiler}))
