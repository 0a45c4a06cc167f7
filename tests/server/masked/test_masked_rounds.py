"""Silos that die, fall silent or send garbage at any step of a masked round."""

import pytest
from masked_world import DEAD, LOST, SILENT

from fondaco.shared.errors import RoundError
from fondaco.shared.secagg.checks import Terms

COHORTS = {3: 3, 5: 4, 10: 8}  # silos, and how many of them must remain
STEPS = ["hello", "share", "release", "confirm", "unmask"]
IN_SUM = {"confirm", "unmask"}  # who fails here has its numbers in the sum


def _garbage(parts):
    return parts._replace(record=b"garbage", masking=b"garbage")


FAULTS = {"dead": DEAD, "garbage": _garbage, "lost": LOST}


def _exact(world, result, attempt=1):
    """Hold that a round gave the plain sum of those it names."""
    assert result.total.tolist() == world.expected(result, attempt).tolist()
    assert len(result.present) >= world.plan.cohort.n_min
    gone = {drop.silo_id for drop in result.dropped}
    assert sorted({*result.present} | gone) == sorted(world.silos)
    assert all(drop.reason for drop in result.dropped)


def _paid_once(world, *kinds):
    assert set(map(tuple, world.keys("DEBIT").values())) == {tuple((k, 1) for k in kinds)}


@pytest.mark.parametrize(("n", "n_min"), COHORTS.items())
@pytest.mark.parametrize("ring_bits", [32, 64])
def test_masked_round_gives_the_exact_sum_of_all(make_world, n, n_min, ring_bits):
    world = make_world(n, n_min, ring_bits=ring_bits)
    result = world.collect()
    _exact(world, result)
    assert (result.dropped, len(result.present)) == ((), n)


def test_masked_round_travels_through_flowers_bytes(make_world):
    world = make_world(3, 3, key_agreement="x25519-mlkem768")
    world.grid._serialise = True
    _exact(world, world.collect())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("n", [5, 10])
def test_round_gives_the_survivors_sum_while_the_quorum_holds(make_world, n, fault, step):
    world = make_world(n, COHORTS[n])
    lost = world.silos[1:3][: n - COHORTS[n]]
    world.fails(step, fault, *lost, later=True)
    result = world.collect()
    _exact(world, result)
    assert sorted(result.present) == sorted({*world.silos} - (set() if step in IN_SUM else {*lost}))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("n", COHORTS)
def test_round_without_quorum_unmasks_nothing_and_the_next_start_goes_on(make_world, n, step):
    """The same attempt where something was released, and nobody pays twice."""
    world = make_world(n, COHORTS[n])
    terms = Terms.of_plan(world.plan)
    least = {"confirm": terms.cohort.threshold, "unmask": terms.share_threshold}
    lost = world.silos[: n - least.get(step, COHORTS[n]) + 1]
    world.fails(step, DEAD, *lost, later=True)
    with pytest.raises(RoundError, match=r"popularity, attempt 1: .*gone"):
        world.collect()
    if step != "unmask":
        assert set(map(tuple, world.keys("UNMASK").values())) == {()}
    assert ("unmask", world.silos[-1]) not in world.asked or step == "unmask"
    released = step not in STEPS[:2]
    paid = {s for s, keys in world.keys("DEBIT").items() if keys}
    late = {*lost} if step == "release" else set()
    assert paid == ({*world.silos} - late if released else set())
    world.faults.clear()
    result = world.collect()
    _exact(world, result, attempt=1 if released else 2)
    assert len(result.present) == n
    assert {len(keys) for keys in world.keys("DEBIT").values()} == {1}
    assert {len(keys) for keys in world.keys("UNMASK").values()} == {1}


@pytest.mark.parametrize("step", STEPS)
def test_silo_that_comes_back_between_starts_is_in_the_next_round(make_world, step):
    world = make_world(5, 4)
    world.fails(step, DEAD, "silo-3", later=True)
    _exact(world, world.collect())
    world.faults.clear()
    world.restart("silo-3")
    result = world.collect("gram")
    _exact(world, result)
    assert len(result.present) == 5


@pytest.mark.parametrize("step", STEPS)
def test_silent_silo_costs_at_most_the_deadline(make_world, step):
    """A tenth of it at confirm and unmask: enough others have answered by then."""
    world = make_world(5, 4)
    world.fails(step, SILENT, "silo-3")
    result = world.collect(deadline_s=60)
    _exact(world, result)
    assert world.clock.now == pytest.approx(6 if step in IN_SUM else 60, abs=0.2)


def test_liars_do_not_shorten_the_time_of_others(make_world):
    """Enough answers are enough that hold: two of five lie at once, one is slow."""
    world = make_world(5, 4)
    world.fails("confirm", _garbage, "north", "silo-2")
    world.fails("confirm", SILENT, "silo-5")
    with pytest.raises(RoundError, match="2 silos confirmed"):
        world.collect(deadline_s=60)
    assert world.clock.now == pytest.approx(60, abs=0.2)


def test_silo_that_is_silent_all_along_costs_one_deadline(make_world):
    """Who said no hello is not asked again in this round."""
    world = make_world(5, 4)
    world.fails("hello", SILENT, "silo-3", later=True)
    _exact(world, world.collect(deadline_s=60))
    assert world.clock.now == pytest.approx(60, abs=0.2)


def test_round_of_silent_silos_ends_at_the_deadline(make_world):
    world = make_world(3, 3)
    world.fails("hello", SILENT, *world.silos)
    with pytest.raises(RoundError, match=r"no answer within 60 s"):
        world.collect(deadline_s=60)
    assert world.clock.now == pytest.approx(60, abs=0.2)


def test_run_with_a_silo_lost_in_the_middle_finishes_and_names_it(make_world):
    world = make_world(5, 4)
    world.fails("release", DEAD, "silo-4", later=True)
    outcome = world.run()
    assert [len(r.present) for r in outcome.rounds] == [4, 4]
    for result in outcome.rounds:
        _exact(world, result)
    assert {(d.silo_id, d.round_num) for d in outcome.dropped} >= {("silo-4", 1), ("silo-4", 2)}
    paid = world.keys("DEBIT")
    assert paid.pop("silo-4") == []
    assert set(map(tuple, paid.values())) == {(("popularity", 1), ("gram", 1))}


def test_journals_are_gone_after_a_run(make_world):
    world = make_world(3, 3)
    world.run()
    assert world.journal_files == []
    _paid_once(world, "popularity", "gram")
    assert not any((world.folder / "sessions").iterdir())
