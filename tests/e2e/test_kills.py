"""kill -9 at every labelled point and at random: paid before sent, sent once, resumed the same."""

import hashlib
import json
import os
import resource
import signal
import time
import traceback
from collections import Counter
from itertools import count

import numpy as np
import pytest

from fondaco.client import agent as agent_module
from fondaco.client import forgetting as forgetting_module
from fondaco.client import owner as owner_module
from fondaco.client import testimony as testimony_module
from fondaco.client.agent import SiloAgent
from fondaco.client.app import make_app
from fondaco.client.dataset import Fold, Rows, SiloDataset
from fondaco.client.dataset_files import load_silo, save_silo
from fondaco.client.erasure import Erasures
from fondaco.client.forgetting import forget
from fondaco.client.home import SiloHome
from fondaco.client.limits import new_policy
from fondaco.client.owner import Owner
from fondaco.server import app as server_app
from fondaco.server.app import Job, run_job
from fondaco.server.checkpoint import Checkpoints
from fondaco.server.witness import WitnessBook
from fondaco.shared import codec
from fondaco.shared.chain import store as store_module
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.chain.notes import cosign
from fondaco.shared.chain.store import DOMAIN, Chain, Record, check_links, is_begun
from fondaco.shared.errors import FondacoError
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.plan import Cohort
from fondaco.shared.records import RoundRequest
from fondaco.shared.workspace import Workspace
from fondaco.simulation.grid import InProcessGrid

SILOS = ("north", "silo-2", "silo-3")
NONE = np.empty(0, dtype=np.int64)
SERVER = Identity.seeded(0, COORDINATOR)

LABELS = {
    "before the debit": (Ledger, "debit", "before"),
    "inside of a transaction": (Chain, "_keep", "after"),
    "after the debit": (Ledger, "debit", "after"),
    "before the computation": (agent_module, "clipped_sum", "before"),
    "after the computation": (agent_module, "release", "after"),
    "before the bytes are written": (agent_module, "write_durably", "before"),
    "after the bytes are written": (agent_module, "write_durably", "after"),
    "before the release is recorded": (Ledger, "record_release", "before"),
    "after the release is recorded": (Ledger, "record_release", "after"),
    "before the reply": (SiloAgent, "testify", "before"),
    "before the cosignature is recorded": (Ledger, "note_cosigned", "before"),
    "after the cosignature is recorded": (Ledger, "note_cosigned", "after"),
    "before a replica grows": (testimony_module, "_keep_replica", "before"),
    "after a replica has grown": (testimony_module, "_keep_replica", "after"),
    "before a plan is approved": (Ledger, "approve", "before"),
    "after a plan is approved": (Ledger, "approve", "after"),
    "before a ledger's folder is durable": (store_module, "_sync_folder", "before"),
    "when the model arrives": (SiloAgent, "receive", "after"),
}
COORDINATOR_LABELS = {
    "before heads are kept": (WitnessBook, "save", "before"),
    "after a replica is kept": (WitnessBook, "_append_to", "after"),
    "after heads are kept": (WitnessBook, "save", "after"),
    "before a round is kept": (Checkpoints, "save", "before"),
    "after a round is kept": (Checkpoints, "save", "after"),
    "before the model is kept": (server_app, "save_global_model", "before"),
}


def _dataset(silo_id, n_users=3):
    users = np.array([f"{silo_id}-customer-{num}" for num in range(n_users)])
    items = np.arange(2 * n_users) % 5
    rows = Rows(
        user_nums=np.repeat(np.arange(n_users), 2),
        item_nums=items,
        times=np.arange(2.0 * n_users),
    )
    empty = rows.take(np.zeros(2 * n_users, dtype=bool))
    fold = Fold(user_nums=NONE, history=empty, targets=empty)
    return SiloDataset(
        silo_id=silo_id, user_ids=users, n_items=5, train=rows, valid=fold, test=fold
    )


def _die_in(owner, name, when, nth=1):
    """Make the nth call of a function the last thing that this process does."""
    real, calls = getattr(owner, name), count(1)

    def wrapped(*args, **options):
        num = next(calls)
        if (when, num) == ("before", nth):
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if (when, num) == ("after", nth):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def _fork(work):
    """Return a child process that runs `work`; it exits with 0 only if nothing was raised."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _in_child(work):
    """Return how a child ended: 0, 1, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(_fork(work), 0)[1])


class World:
    """Three silos and a coordinator in one folder, run in processes that are killed."""

    def __init__(self, plan, catalogue, folder):
        self.plan, self.catalogue, self.folder = plan, catalogue, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.outside = folder / "outside"

    def agent(self, silo_id, keep_open=True):
        home = SiloHome(self.folder, silo_id)
        return SiloAgent(_dataset(silo_id), self.plan, self.catalogue, home, 0, keep_open=keep_open)

    def run(self, kill=None):
        """Run or resume the whole plan; what silos send is noted outside of them."""
        outside = os.open(self.outside, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        if kill is not None:
            _die_in(*kill)
        testify = SiloAgent.testify
        sent = {}

        def run_round(agent, blob, witnessed="", real=SiloAgent.run_round):
            sent[agent.silo_id] = real(agent, blob, witnessed)
            return sent[agent.silo_id]

        def reply(agent, call):
            said = testify(agent, call)
            if blob := sent.pop(agent.silo_id, b""):
                digest = hashlib.sha256(blob).hexdigest()
                os.write(outside, f"{agent.silo_id} sha256:{digest}\n".encode())
            return said

        SiloAgent.run_round, SiloAgent.testify = run_round, reply
        agents = [self.agent(silo) for silo in SILOS]
        grid = InProcessGrid(
            make_app(lambda context: agents[int(context.node_config["partition-id"])]), len(SILOS)
        )
        job = Job(
            plan=self.plan,
            catalogue=self.catalogue,
            workspace=Workspace(self.folder),
            deadline_s=5,
            progress=lambda *news: None,
            identity=SERVER,
        )
        outcome = run_job(grid, job)
        assert not outcome.dropped, outcome.dropped

    def finish(self):
        """Run to the end in a child; return the model's digest."""
        assert _in_child(self.run) == 0
        return hashlib.sha256(Workspace(self.folder).model.read_bytes()).hexdigest()

    def ledger(self, silo_id):
        identity = Identity.seeded(0, f"fondaco/{silo_id}")
        return Ledger(SiloHome(self.folder, silo_id).ledger, identity, self.plan)

    def check(self):
        """Hold every promise about debits and releases against what is on disk and outside."""
        lines = self.outside.read_text().splitlines() if self.outside.is_file() else []
        seen = {tuple(line.split()) for line in lines}
        known = set()
        for silo in SILOS:
            if not is_begun(SiloHome(self.folder, silo).ledger):
                continue
            with self.ledger(silo) as ledger:
                bodies, records = ledger.records(), map(Record.from_line, ledger.chain.lines())
                key = ledger.chain._owner.public
                checked = list(records)
            check_links(checked)
            assert all(key.verifies(r.signature, DOMAIN + r.digest) for r in checked)
            known |= {(silo, r["blob"]) for r in _check_debits(bodies, self.plan)}
        assert seen <= known


def _check_debits(bodies, plan):
    """Return a ledger's releases, each of which one earlier debit of its own pays for."""
    debits = {r["seq"]: r for r in bodies if r["type"] == "DEBIT"}
    releases = [r for r in bodies if r["type"] == "RELEASE"]
    names = ("kind", "round_num", "attempt", "plan_digest")
    for release in releases:
        debit = debits[release["debit_seq"]]
        assert debit["seq"] < release["seq"]
        assert [debit[name] for name in names] == [release[name] for name in names]
    assert len({r["debit_seq"] for r in releases}) == len(releases)
    keys = Counter(tuple(r[name] for name in names) for r in debits.values())
    assert set(keys.values()) <= {1}
    assert sum(r["cost"] for r in debits.values()) <= plan.budget_units
    return releases


@pytest.fixture(scope="module")
def kill_plan(make_plan, make_roster):
    cohort = Cohort(n_silos=3, n_min=3, t_collude=1)
    plan = make_plan(n_silos=3, **make_roster(3), cohort=cohort)
    plan.epsilons()  # so that no child spends its life on accounting
    return plan


@pytest.fixture(scope="module")
def unkilled(kill_plan, catalogue, tmp_path_factory):
    """The model of a run that nobody killed, and how long it took [s]."""
    world = World(kill_plan, catalogue, tmp_path_factory.mktemp("unkilled"))
    start = time.perf_counter()
    model = world.finish()
    world.check()
    return model, time.perf_counter() - start


@pytest.fixture
def world(kill_plan, catalogue, tmp_path):
    return World(kill_plan, catalogue, tmp_path)


def _kill_and_check(world, label, nth):
    """Kill the run at a label's nth call; return whether it got that far."""
    code = _in_child(lambda: world.run((*label, nth)))
    assert code in (0, -signal.SIGKILL)
    world.check()
    return code != 0


@pytest.mark.parametrize("name", [*LABELS, *COORDINATOR_LABELS])
def test_run_killed_at_a_labelled_point_resumes_to_the_same_model(world, unkilled, name):
    label = {**LABELS, **COORDINATOR_LABELS}[name]
    assert _kill_and_check(world, label, 1)
    assert world.finish() == unkilled[0]
    world.check()
    for silo in SILOS:
        with world.ledger(silo) as ledger:
            assert len(ledger.chain.of_type("DEBIT")) == len(ledger.chain.of_type("RELEASE")) == 2


@pytest.mark.slow
def test_two_hundred_kills_leave_every_promise_whole(kill_plan, catalogue, tmp_path, unkilled):
    """Labelled points at every depth of a run, and random moments, several kills to a run."""
    rng = np.random.default_rng(0)
    labels = [*LABELS.values(), *COORDINATOR_LABELS.values()]
    kills = 0
    for num in count():
        world = World(kill_plan, catalogue, tmp_path / str(num))
        while True:
            if rng.integers(2):
                label = labels[rng.integers(len(labels))]
                killed = _kill_and_check(world, label, rng.integers(1, 5))
            else:
                child = _fork(world.run)
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


def test_random_kills_leave_every_promise_whole(world, unkilled):
    rng = np.random.default_rng(1)
    for _ in range(4):
        child = _fork(world.run)
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
def test_kill_while_records_come_back_takes_all_or_none(world, make_owner, when, nth):
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
            _die_in(Chain, "_keep", when, nth)
            ledger.chain.absorb(lines)

    assert _in_child(absorb) == -signal.SIGKILL
    with world.ledger("north") as ledger:
        assert ledger.chain.lines() == lines[:2]
        assert ledger.chain.absorb(lines) == 3
        assert ledger.chain.lines() == lines
    world.check()


def test_two_agents_of_one_silo_pay_once_even_if_one_is_killed(world, make_owner):
    world.agent("north").status()
    note = _witnessed(world, make_owner)

    def work():
        blob = world.agent("north").run_round(_request(world.plan), note)
        with world.outside.open("a") as file:
            file.write(f"north sha256:{hashlib.sha256(blob).hexdigest()}\n")

    children = [_fork(work) for _ in range(4)]
    time.sleep(0.005)
    os.kill(children[0], signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes[1:] == [0, 0, 0]
    assert len(set(world.outside.read_text().splitlines())) == 1
    world.check()


def test_full_disk_at_any_byte_gives_no_unpaid_release_and_recovers(world, make_owner):
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

    assert _in_child(work) == 0
    with world.ledger("north") as ledger:
        types = [record["type"] for record in ledger.records()]
    assert types == ["GENESIS", "PLAN", "DEBIT", "RELEASE"]
    assert path.is_file()


# ---- the owner ----


@pytest.fixture
def shop(tmp_path, make_plan, make_roster):
    """An owner with rows and limits, and a plan that waits for the signature."""
    owner = Owner.make(tmp_path / "shop", "north")
    roster = make_roster(mode="deploy")
    keys = {**roster["roster"], "north": owner.identity.public.text()}
    plan = make_plan(trust="silo", **{**roster, "roster": keys})
    peers = [key for silo, key in keys.items() if silo != "north"]
    owner.pin([store_module.PublicKey.from_text(key) for key in (*peers, plan.coordinator)])
    with owner.ledger() as ledger:
        ledger.adopt(new_policy(None, 50.0, 50.0, 1e-6))
    save_silo(_dataset("north"), owner.rows)
    plan.epsilons()
    return owner, plan


def _types(owner):
    with owner.ledger() as ledger:
        check_links(map(Record.from_line, ledger.chain.lines()))
        return [record["type"] for record in ledger.records()]


APPROVING = {
    "before the record": (Chain, "_keep", "before"),
    "inside of the transaction": (Chain, "_keep", "after"),
    "after the record": (Ledger, "approve", "after"),
    "after the text": (owner_module, "write_durably", "after"),
}


@pytest.mark.parametrize("name", APPROVING)
def test_approval_killed_on_the_way_is_whole_or_not_there(shop, name):
    owner, plan = shop

    def approve():
        _die_in(*APPROVING[name])
        Owner.open(owner.folder).approve(plan)

    assert _in_child(approve) == -signal.SIGKILL
    whole = "after" in APPROVING[name][2] and APPROVING[name][0] is not Chain
    assert (owner.approved() is not None) == whole
    owner.approve(plan)
    assert owner.approved() == plan
    assert _types(owner) == ["GENESIS", "POLICY", "PLAN"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_limits_killed_on_the_way_are_the_old_or_the_new(shop, when):
    owner, _ = shop
    tighter = new_policy(None, 1.0, 2.0, 1e-6)

    def tighten():
        _die_in(Chain, "_keep", when)
        with owner.ledger() as ledger:
            ledger.adopt(tighter)

    assert _in_child(tighten) == -signal.SIGKILL
    with owner.ledger() as ledger:
        assert ledger.policy().epsilon_per_year == "50.0"
        ledger.adopt(tighter)
    assert _types(owner) == ["GENESIS", "POLICY", "POLICY"]


ERASING = {
    "before the list": (Erasures, "add", "before"),
    "after the list": (Erasures, "add", "after"),
    "before the rows": (forgetting_module, "save_silo", "before"),
    "after the rows": (forgetting_module, "save_silo", "after"),
    "before the record": (Ledger, "note_erasure", "before"),
    "inside of the transaction": (Chain, "_keep", "after"),
    "after the record": (Ledger, "note_erasure", "after"),
}


@pytest.mark.parametrize("name", ERASING)
def test_erasure_killed_on_the_way_ends_when_it_is_asked_for_again(shop, name):
    owner, _ = shop
    gone = "north-customer-1"

    def erase():
        _die_in(*ERASING[name])
        forget(Owner.open(owner.folder), gone)

    assert _in_child(erase) == -signal.SIGKILL
    again = Owner.open(owner.folder)
    if name != "before the list":
        kept = Erasures(again.home.erased, again.home.secret(again.identity)).kept(
            load_silo(owner.rows)
        )
        assert gone not in kept.user_ids.tolist()
    if name != "after the record":
        forget(again, gone)
    assert _types(again).count("ERASURE") == 1
    assert load_silo(owner.rows).user_ids.tolist() == ["north-customer-0", "north-customer-2"]
    json.loads((owner.folder / "owner.json").read_text())
    assert not [path.name for path in owner.folder.parent.iterdir() if path != owner.folder]


def test_every_point_of_the_brief_has_a_label():
    assert len(LABELS) + len(COORDINATOR_LABELS) + len(APPROVING) + len(ERASING) >= 30
