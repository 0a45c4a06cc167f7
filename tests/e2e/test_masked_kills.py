"""kill -9 at every point of masked rounds: the same model, paid once, unmasked once."""

import os
import signal
import time
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from kill_points import COORDINATOR_LABELS, LABELS, MASKED_LABELS
from kill_world import World

from fondaco.shared.privacy.plan import Cohort

UNUSED = {  # by masked rounds without witnesses
    "before the cosignature is recorded",
    "after the cosignature is recorded",
    "before a replica grows",
    "after a replica has grown",
    "before heads are kept",
    "after a replica is kept",
    "after heads are kept",
}
SHARED = {
    name: label for name, label in {**LABELS, **COORDINATOR_LABELS}.items() if name not in UNUSED
}
EVERY_STEP = {"save": 10, "_save": 30, "answer": 24, "record_unmask": 6, "record_release": 6}
"""Function -> how often a run of three silos and two rounds calls it."""


@pytest.fixture(scope="module")
def make_world(make_plan, make_masked, catalogue, children):
    """Return a function: folder, silos, how many must remain -> a world of masked sums."""
    plans = {}

    def make(folder, n_silos=3, n_min=3):
        if n_silos not in plans:
            cohort = Cohort(n_silos=n_silos, n_min=n_min, t_collude=1)
            plan = replace(make_plan(n_silos=n_silos), cohort=cohort, **make_masked(n_silos))
            plan.epsilons()  # so that no child spends its life on accounting
            plans[n_silos] = plan
        return World(plans[n_silos], catalogue, folder, children)

    return make


pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture(scope="module")
def unkilled(make_world, tmp_path_factory):
    """Return a function: silos, how many must remain -> the model of a run nobody killed, [s]."""
    known = {}

    def run(*cohort):
        if cohort not in known:
            world = make_world(tmp_path_factory.mktemp("unkilled"), *cohort)
            start = time.perf_counter()
            model = world.finish()
            world.check()
            known[cohort] = model, time.perf_counter() - start
        return known[cohort]

    return run


def _whole(world):
    """Hold that everything was paid, sent and unmasked once, and that no secret is left."""
    world.check()
    for silo in world.silos:
        with world.ledger(silo) as ledger:
            records = ledger.chain.of_type
            counts = [len(records(kind)) for kind in ("DEBIT", "RELEASE", "UNMASK")]
        assert counts == [2, 2, 2]
    assert list((world.folder / "journals").iterdir()) == []
    assert list((world.folder / "sessions").iterdir()) == []


LABELLED = [
    pytest.param((*label, nth), id=name)
    for labels, nth in ((MASKED_LABELS, 2), (SHARED, 1))
    for name, label in labels.items()
]


@pytest.mark.parametrize("kill", LABELLED)
def test_masked_run_killed_at_a_labelled_point_resumes_to_the_same_model(
    make_world, unkilled, tmp_path, kill, children
):
    world = make_world(tmp_path / "killed")
    assert children.ended(lambda: world.run(kill)) == -signal.SIGKILL
    world.check()
    assert world.finish() == unkilled()[0]
    _whole(world)


def _every_point():
    for name, label in MASKED_LABELS.items():
        for nth in range(1, EVERY_STEP.get(label[1], 0) + 1):
            yield pytest.param((*label, nth), id=f"{name} {nth}")


@pytest.mark.slow
@pytest.mark.parametrize("kill", [*_every_point()])
def test_masked_run_killed_at_any_step_of_any_silo_resumes(make_world, tmp_path, kill, children):
    world = make_world(tmp_path / "killed")
    assert children.ended(lambda: world.run(kill)) == -signal.SIGKILL
    world.check()
    world.finish()
    _whole(world)


@pytest.mark.slow
@pytest.mark.parametrize("cohort", [(4, 3), (5, 4)], ids=str)
def test_many_kills_of_masked_runs_leave_every_promise_whole(
    make_world, unkilled, tmp_path, cohort, children
):
    """Labelled points at every depth of a run, and random moments, several kills to a run."""
    rng = np.random.default_rng(sum(cohort))
    labels = [*MASKED_LABELS.values(), *SHARED.values()]
    model, seconds = unkilled(*cohort)
    kills = 0
    for num in count():
        world = make_world(tmp_path / str(num), *cohort)
        for _ in range(6):
            if rng.integers(2):
                label = (*labels[rng.integers(len(labels))], int(rng.integers(1, 12)))
                code = children.ended(lambda label=label, world=world: world.run(label))
            else:
                child = children.fork(world.run)
                time.sleep(rng.uniform(0, seconds))
                os.kill(child, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in (0, -signal.SIGKILL)
            world.check()
            kills += code != 0
        assert world.finish() == model
        _whole(world)
        if kills >= 20:
            return
