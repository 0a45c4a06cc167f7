"""kill -9 at every labelled point and at random: paid before sent, sent once, resumed the same."""

import hashlib
import os
import resource
import signal
import time
from itertools import count

import numpy as np
import pytest
from kill_points import APPROVING, COORDINATOR_LABELS, ERASING, LABELS
from kill_world import NONE, SERVER, SILOS, World

from fondaco.client.home import SiloHome
from fondaco.shared import codec
from fondaco.shared.chain.notes import cosign
from fondaco.shared.chain.store import Chain
from fondaco.shared.errors import FondacoError
from fondaco.shared.privacy.plan import Cohort
from fondaco.shared.records import RoundRequest


@pytest.fixture(scope="module")
def kill_plan(make_plan, make_roster):
    cohort = Cohort(n_silos=3, n_min=3, t_collude=1)
    plan = make_plan(n_silos=3, **make_roster(3), cohort=cohort)
    plan.epsilons()  # so that no child spends its life on accounting
    return plan


@pytest.fixture(scope="module")
def unkilled(kill_plan, catalogue, tmp_path_factory, children):
    """The model of a run that nobody killed, and how long it took [s]."""
    world = World(kill_plan, catalogue, tmp_path_factory.mktemp("unkilled"), children)
    start = time.perf_counter()
    model = world.finish()
    world.check()
    return model, time.perf_counter() - start


@pytest.fixture
def world(kill_plan, catalogue, tmp_path, children):
    return World(kill_plan, catalogue, tmp_path, children)


def _kill_and_check(children, world, label, nth):
    """Kill the run at a label's nth call; return whether it got that far."""
    code = children.ended(lambda: world.run((*label, nth)))
    assert code in (0, -signal.SIGKILL)
    world.check()
    return code != 0


@pytest.mark.parametrize("name", [*LABELS, *COORDINATOR_LABELS])
def test_run_killed_at_a_labelled_point_resumes_to_the_same_model(world, unkilled, name, children):
    label = {**LABELS, **COORDINATOR_LABELS}[name]
    assert _kill_and_check(children, world, label, 1)
    assert world.finish() == unkilled[0]
    world.check()
    for silo in SILOS:
        with world.ledger(silo) as ledger:
            assert len(ledger.chain.of_type("DEBIT")) == len(ledger.chain.of_type("RELEASE")) == 2


@pytest.mark.slow
def test_two_hundred_kills_leave_every_promise_whole(
    kill_plan, catalogue, tmp_path, unkilled, children
):
    """Labelled points at every depth of a run, and random moments, several kills to a run."""
    rng = np.random.default_rng(0)
    labels = [*LABELS.values(), *COORDINATOR_LABELS.values()]
    kills = 0
    for num in count():
        world = World(kill_plan, catalogue, tmp_path / str(num), children)
        while True:
            if rng.integers(2):
                label = labels[rng.integers(len(labels))]
                killed = _kill_and_check(children, world, label, rng.integers(1, 5))
            else:
                child = children.fork(world.run)
                time.sleep(rng.uniform(0, unkilled[1]))
                os.kill(child, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                killed = code == -signal.SIGKILL
                world.check()
            kills += killed
            if not killed:
                break
        assert world.finish() == unkilled[0]
        world.check()
        if kills >= 200:
            return


def test_random_kills_leave_every_promise_whole(world, unkilled, children):
    rng = np.random.default_rng(1)
    for _ in range(4):
        child = children.fork(world.run)
        time.sleep(rng.uniform(0, unkilled[1]))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        world.check()
    assert world.finish() == unkilled[0]


# ---- one silo ----


def _request(plan, kind="popularity"):
    request = RoundRequest(
        plan_digest=plan.digest,
        code_digest=plan.code_digest,
        kind=kind,
        round_num=1 if kind == "popularity" else 2,
        attempt=1,
        model_digest="",
        head=np.arange(4) if kind == "gram" else NONE,
        parameters=np.empty(0, dtype=np.float32),
    )
    return codec.encode(request)


def _witnessed(world, make_owner):
    with world.ledger("north") as ledger:
        note = ledger.chain.note()
    signers = [SERVER, make_owner("silo-2"), make_owner("silo-3")]
    return note + "".join(cosign(note, signer, 5) for signer in signers)


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("when", ["before", "after"])
def test_kill_while_records_come_back_takes_all_or_none(world, make_owner, when, nth, children):
    agent = world.agent("north", keep_open=False)
    agent.status()
    path = SiloHome(world.folder, "north").ledger
    backup = path.read_bytes()
    agent.run_round(_request(world.plan), _witnessed(world, make_owner))
    with world.ledger("north") as ledger:
        ledger.note_erasure(1)
        lines = ledger.chain.lines()
    path.write_bytes(backup)

    def absorb():
        with world.ledger("north") as ledger:
            children.die_in(Chain, "_keep", when, nth)
            ledger.chain.absorb(lines)

    assert children.ended(absorb) == -signal.SIGKILL
    with world.ledger("north") as ledger:
        assert ledger.chain.lines() == lines[:2]
        assert ledger.chain.absorb(lines) == 3
        assert ledger.chain.lines() == lines
    world.check()


def test_two_agents_of_one_silo_pay_once_even_if_one_is_killed(world, make_owner, children):
    world.agent("north").status()
    note = _witnessed(world, make_owner)

    def work():
        blob = world.agent("north").run_round(_request(world.plan), note)
        with world.outside.open("a") as file:
            file.write(f"north sha256:{hashlib.sha256(blob).hexdigest()}\n")

    children = [children.fork(work) for _ in range(4)]
    time.sleep(0.005)
    os.kill(children[0], signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes[1:] == [0, 0, 0]
    assert len(set(world.outside.read_text().splitlines())) == 1
    world.check()


def test_full_disk_at_any_byte_gives_no_unpaid_release_and_recovers(world, make_owner, children):
    world.agent("north").status()
    note = _witnessed(world, make_owner)
    path = SiloHome(world.folder, "north").ledger

    def work():
        agent = world.agent("north", keep_open=False)
        whole = resource.getrlimit(resource.RLIMIT_FSIZE)
        failures = 0
        for limit in (0, 50, 300, 4_000, 4_200, 8_000, 12_000, 16_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, whole[1]))
            try:
                agent.run_round(_request(world.plan), note)
            except (FondacoError, OSError):
                failures += 1
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, whole)
            world.check()
        assert failures >= 3
        first = agent.run_round(_request(world.plan), note)
        assert agent.run_round(_request(world.plan), note) == first

    assert children.ended(work) == 0
    with world.ledger("north") as ledger:
        types = [record["type"] for record in ledger.records()]
    assert types == ["GENESIS", "PLAN", "DEBIT", "RELEASE"]
    assert path.is_file()


def test_every_point_of_the_brief_has_a_label():
    assert len(LABELS) + len(COORDINATOR_LABELS) + len(APPROVING) + len(ERASING) >= 30
