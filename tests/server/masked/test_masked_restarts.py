"""A coordinator or silos that start again in the middle of a masked round."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from masked_world import DEAD, LOST, SILENT, STEPS

from fondaco.client import masking as masking_module
from fondaco.server import journal as journal_module
from fondaco.shared.errors import RoundError

ROUND = ["hello", "share", "release", "confirm", "unmask"]
DAY_S = 24 * 3600


def _holds(world, result, attempt=1):
    assert result.total.tolist() == world.expected(result, attempt).tolist()


def _stopped(world, step):
    """Run a round that ends when all silos but one die at a step; then they live again."""
    world.fails(step, DEAD, *world.silos[1:], later=True)
    with pytest.raises(RoundError):
        world.collect()
    world.faults.clear()


@pytest.mark.parametrize("step", ROUND)
def test_silo_that_starts_again_between_steps_goes_on_from_its_files(make_world, step):
    """One silo's process is a new one right before it is asked."""
    world = make_world(5, 5)

    def restart(parts):
        world.restart("silo-2", "silo-3")  # after its answer: the next step finds a new agent
        return parts

    world.fails(step, restart, "silo-2")
    _holds(world, result := world.collect())
    assert len(result.present) == 5


def test_all_silos_start_again_after_every_step(make_world):
    world = make_world(5, 5)
    for step in ROUND:
        world.fails(step, lambda parts: world.restart(*world.silos) or parts, "silo-5")
    _holds(world, world.collect())
    assert set(map(tuple, world.keys("UNMASK").values())) == {(("popularity", 1),)}


@pytest.mark.parametrize("step", ROUND)
def test_lost_answer_is_given_again_to_the_next_coordinator(make_world, step):
    """The same bytes: everybody has paid once, and answered once."""
    world = make_world(5, 5)
    world.fails(step, LOST, "silo-2")
    if step in ("confirm", "unmask"):
        result = world.collect()  # enough others have answered
    else:
        with pytest.raises(RoundError, match=r"silo-2: no answer|4 silos are too few"):
            world.collect()
        world.faults.clear()
        result = world.collect()
    _holds(world, result, attempt=2 if step in ("hello", "share") else 1)
    assert {len(keys) for keys in world.keys("DEBIT").values()} == {1}
    assert {len(keys) for keys in world.keys("UNMASK").values()} == {1}


def test_unmasking_again_gives_the_same_sum(make_world):
    """The coordinator died with the result at hand, before its checkpoint."""
    world = make_world(5, 4)
    first = world.collect()
    before = world.keys("DEBIT")
    again = world.collect()
    assert again.total.tolist() == first.total.tolist()
    assert world.keys("DEBIT") == before


@pytest.mark.parametrize("damage", ["torn", "empty", "other text", "another plan's"])
def test_damaged_journal_before_any_release_costs_nothing(make_world, damage):
    world = make_world(5, 4)
    _stopped(world, "share")
    _damage(world, damage)
    result = world.collect()
    _holds(world, result, attempt=2)
    assert {len(keys) for keys in world.keys("DEBIT").values()} == {1}


@pytest.mark.parametrize("damage", ["torn", "other text"])
def test_damaged_journal_after_the_release_ends_in_a_new_attempt(make_world, damage):
    """Silos never mask the same attempt for others: the next one is paid for anew."""
    world = make_world(5, 4)
    _stopped(world, "confirm")
    _damage(world, damage)
    _holds(world, world.collect(), attempt=2)
    _paid_twice(world)


def _paid_twice(world):
    """Hold that everybody paid for two attempts, and unmasked the second; there is no refund."""
    both = [("popularity", 1), ("popularity", 2)]
    assert all(keys == both for keys in world.keys("DEBIT").values())
    assert all(keys == both[1:] for keys in world.keys("UNMASK").values())
    with pytest.raises(RoundError, match=r"gram, attempt 1: .*a new plan is needed"):
        world.collect("gram")


def test_sum_whose_masks_did_not_cancel_gives_way_to_a_new_attempt(make_world):
    """Seeds are held against what was published: asking again would give the same noise."""
    world = make_world(5, 4)
    spoilt = _spoil_masks(world, "silo-3")
    with pytest.raises(RoundError, match=r"attempt 1: the masks did not cancel.* pay again"):
        world.collect()
    spoilt.clear()
    _holds(world, world.collect(), attempt=2)
    both = [("popularity", 1), ("popularity", 2)]
    assert all(world.keys(kind)["north"] == both for kind in ("DEBIT", "RELEASE", "UNMASK"))


def test_silo_that_spoils_every_sum_makes_nobody_pay_more_than_the_plan(make_world):
    world = make_world(5, 4)
    _spoil_masks(world, "silo-3")
    for attempt in range(1, 9):
        with pytest.raises(RoundError, match=f"attempt {attempt}: ") as error:
            world.collect()
        if "a new plan is needed" in str(error.value):
            break
    spent = {sum(r["cost"] for r in world.records(silo, "DEBIT")) for silo in world.silos}
    assert 2 < attempt < 9
    assert max(spent) <= sum(world.plan.cost(event) for event in world.plan.releases)


def _spoil_masks(world, *silos):
    """Have silos send, and write down, a word that is off by a quarter of the ring."""
    spoilt, hide = {*silos}, world._hide

    def off(update, masks, ring_bits):
        hidden = hide(update, masks, ring_bits)
        more = np.uint64(2**62) if update.silo_id in spoilt else np.uint64(0)
        return replace(hidden, values=hidden.values + more)

    world._hide = off
    return spoilt


def _damage(world, how):
    (path,) = (world.folder / "journals").glob("*.json")
    text = path.read_bytes()
    digest = world.plan.digest.encode()
    path.write_bytes(
        {
            "torn": text[: len(text) // 2],
            "empty": b"",
            "other text": text.replace(b'"aborted"', b'"Aborted"'),
            "another plan's": text.replace(digest, b"sha256:" + b"0" * 64),
        }[how]
    )


def _spoil_total(world, damage):
    """Spoil the masked total that is kept; return its path and what was in it."""
    (path,) = (world.folder / "journals").glob("*.safetensors")
    blob = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(blob[:-3])
    else:
        path.write_bytes(blob[:-8] + bytes(8))
    return path, blob


DAMAGES = ["missing", "torn", "another total"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_total_is_gathered_again_before_anybody_unmasks(make_world, damage):
    world = make_world(5, 4)
    _stopped(world, "confirm")
    _spoil_total(world, damage)
    _holds(world, world.collect())


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_total_of_certified_survivors_is_a_clear_error(make_world, damage):
    world = make_world(5, 4)
    _stopped(world, "unmask")
    path, blob = _spoil_total(world, damage)
    with pytest.raises(RoundError, match=r"round-1-1\.safetensors"):
        world.collect()
    path.write_bytes(blob)
    _holds(world, world.collect())


def test_attempt_whose_time_is_over_gives_way_to_a_new_one(make_world, monkeypatch):
    """A day later all secrets of it are gone; nobody was debited, so the new one is free to go."""
    world = make_world(5, 4)
    _stopped(world, "share")
    _later(monkeypatch, 2 * DAY_S)
    result = world.collect()
    _holds(world, result, attempt=2)


def test_released_attempt_whose_time_is_over_is_never_unmasked(make_world, monkeypatch):
    world = make_world(5, 4)
    _stopped(world, "confirm")
    _later(monkeypatch, 2 * DAY_S)
    _holds(world, world.collect(), attempt=2)
    _paid_twice(world)


def _later(monkeypatch, seconds):
    clock = SimpleNamespace(time=lambda: time.time() + seconds)
    for module in (journal_module, masking_module):
        monkeypatch.setattr(module, "time", clock)


@pytest.mark.parametrize("seed", range(6))
def test_no_silo_is_ever_in_a_sum_twice(make_world, seed):
    """Silo i sends 10^i under its masks: a digit other than 0 and 1 would be a double count.

    Faults and restarts at random; every end is the survivors' sum or a clean error.
    """
    rng = np.random.default_rng(seed)
    world = make_world(5, 4)
    world.units = True
    for _ in range(8):
        world.faults.clear()
        for _ in range(rng.integers(0, 4)):
            step, silo = rng.choice(STEPS[1:6]), rng.choice(world.silos)
            fault = (DEAD, SILENT, LOST)[rng.integers(3)]
            world.fails(str(step), fault, str(silo), later=bool(rng.integers(2)))
        if rng.integers(2):
            world.restart(*world.silos)
        try:
            result = world.collect()
        except RoundError:
            continue
        digits = [int(digit) for digit in f"{result.total[0]:05d}"[::-1]]
        assert digits == [int(silo in result.present) for silo in world.silos]
        assert len(result.present) >= 4
    attempts = [attempt for keys in world.keys("DEBIT").values() for _, attempt in keys]
    assert len(attempts) == sum(len(set(keys)) for keys in world.keys("DEBIT").values())
    for silo, keys in world.keys("UNMASK").items():
        assert len(keys) == len(set(keys))
        assert set(keys) <= set(world.keys("RELEASE")[silo])
