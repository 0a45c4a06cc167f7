"""Agent, courier and strangers as OS users of their own: who can do what, hijacked or not."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from builders import CANARY
from owned_folder import wait_for

from fondaco.client import service
from fondaco.client.boundary.desk import listen
from fondaco.client.boundary.frames import ACTIONS
from fondaco.client.boundary.link import AgentError, ask
from fondaco.client.courier_folder import Account, acting_as
from fondaco.client.deployment import CourierSettings, Deployment, write_courier, write_deployment
from fondaco.client.service import agent_program
from fondaco.shared import codec
from fondaco.shared.chain.witness import Call
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import ConfigError
from fondaco.shared.parts import Parts
from fondaco.shared.records import PrivateUpdate, RoundRequest

AGENT, COURIER, STRANGER = 60_001, 60_002, 60_003
NO_CALL = Parts(b"", Call().to_bytes())
OTHER = "sha256:" + "0" * 64


def _may_run():
    words = ["setpriv", f"--reuid={AGENT}", "--regid=60001", "--clear-groups", sys.executable]
    return (
        os.geteuid() == 0
        and not subprocess.run(  # noqa: S603
            [*words, "-c", "import fondaco.client.cli"], capture_output=True, check=False
        ).returncode
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _may_run(), reason="other OS users cannot run this Python"),
]


class Town:
    """An agent that runs as one OS user, its socket in the folder of another."""

    def __init__(self, owned, folder, children):
        self.owned, self.children = owned, children
        self.home, courier = folder / "home", folder / "courier"
        self.request = owned.request()
        shutil.move(owned.home, self.home)
        owned.home = self.home
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, AGENT, AGENT)
        courier.mkdir(mode=0o700)
        os.chown(courier, COURIER, COURIER)
        self.socket = courier / "agent.sock"
        with listen(self.socket, COURIER) as listening:
            program = agent_program(self.home, self.socket, listening, AGENT)
            self.agent = subprocess.Popen(  # noqa: S603
                list(program.command),
                env={**program.environment, "HOME": str(self.home)},
                cwd=program.folder,
                pass_fds=program.passed,
                stderr=subprocess.PIPE,
                text=True,
            )

    def stop(self):
        self.agent.send_signal(signal.SIGTERM)
        return self.agent.communicate(timeout=60)[1]

    def as_user(self, uid, work):
        """Do work as an OS user, in a child; hold that nothing was raised."""

        def become():
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            work()

        assert self.children.ended(become) == 0, self.agent.poll() and self.stop()

    def digests(self, *folders):
        paths = sorted(p for name in folders for p in (self.home / name).rglob("*") if p.is_file())
        assert paths
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


@pytest.fixture
def town(owned, sockets, children):
    town = Town(owned, sockets, children)
    yield town
    town.agent.kill()
    town.agent.communicate()


def test_run_looks_into_the_owners_folder_as_its_owner(town, monkeypatch):
    courier = town.socket.parent
    settings = CourierSettings(silo_id="north", superlink="hub:1", socket=str(town.socket))
    with acting_as(Account("courier", COURIER, COURIER)):
        write_courier(courier, settings)
    write_deployment(town.home, Deployment(superlink="hub:1", coordinator="", courier=str(courier)))
    seen = []

    def look(folder):
        seen.append((folder, os.geteuid()))
        raise ConfigError("seen enough")

    monkeypatch.setattr(service, "DeployedAgent", look)
    monkeypatch.setattr(service.logs, "install", lambda process: None)
    with pytest.raises(ConfigError, match="seen enough"):
        service.run(town.home)
    assert seen == [(town.home, AGENT)]
    assert os.geteuid() == 0


def _cannot_read(home, names):
    for name in names:
        for attempt in (os.listdir, os.stat, lambda path: open(path, "rb").close()):
            with pytest.raises(PermissionError):
                attempt(home / name)
    with pytest.raises(PermissionError):
        (home / "planted").write_text("x")
    with pytest.raises(PermissionError):
        home.rename(home.with_name("stolen"))


def _cannot_touch(pid):
    for name in ("mem", "environ", "fd/0", "cwd/owner.json"):
        with pytest.raises(PermissionError):
            Path(f"/proc/{pid}/{name}").open().close()
    with pytest.raises(PermissionError):
        os.kill(pid, signal.SIGKILL)


FILES = ("identity.pem", "owner.json", "data", "data/dataset.json", "ledgers", "outbox")


def test_courier_can_talk_and_read_nothing_of_the_owners(town):
    pid = town.agent.pid

    def work():
        assert ask(town.socket, "status", NO_CALL, patience_s=20).record.startswith(b"FNDC")
        _cannot_read(town.home, FILES)
        _cannot_touch(pid)

    town.as_user(COURIER, work)
    assert os.stat(f"/proc/{pid}").st_uid == AGENT
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        facts = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    assert set(facts["Uid"].split() + facts["Gid"].split()) == {str(AGENT)}
    assert facts["Groups"].split() in ([], [str(AGENT)])
    assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
    said = town.stop()
    assert "agent.stopped" in said


def test_stranger_can_do_nothing(town):
    town.as_user(COURIER, lambda: ask(town.socket, "status", NO_CALL, patience_s=20))

    def work():
        with socket.socket(socket.AF_UNIX) as caller, pytest.raises(PermissionError):
            caller.connect(str(town.socket))
        _cannot_read(town.home, FILES)
        _cannot_touch(town.agent.pid)
        with pytest.raises(PermissionError):
            os.listdir(town.socket.parent)

    town.as_user(STRANGER, work)
    town.socket.parent.chmod(0o777)
    town.socket.chmod(0o777)

    def intrude():
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(town.socket))
            caller.settimeout(30)
            try:
                caller.sendall(b"FND1")
                assert caller.recv(100) == b""
            except (BrokenPipeError, ConnectionResetError):
                return

    town.as_user(STRANGER, intrude)
    assert f"a process of OS user {STRANGER} asked" in town.stop().replace("_", " ")


def _hostile_requests(town):
    """Yield what code in the courier's place would ask for, to get more than the plan gives."""
    plan, honest = town.owned.plan, town.request
    request = codec.decode(honest.record, RoundRequest, Shapes.of_plan(plan))

    def changed(**changes):
        return Parts(codec.encode(replace(request, **changes)), honest.ledger)

    yield "an unapproved plan", "release", changed(plan_digest=OTHER)
    yield "other code", "release", changed(code_digest=OTHER)
    yield "a round that is not planned", "release", changed(round_num=3)
    yield "no witnesses", "release", Parts(honest.record, NO_CALL.ledger)
    yield "a statistic of its own", "release", changed(kind="gram", round_num=1)
    for name in ("seed", "stddev_grid", "noise", "clip"):
        head, _, tail = honest.record.partition(b'"fields":{')
        blob = head + b'"fields":{"' + name.encode() + b'":0,' + tail
        length = int.from_bytes(blob[4:8], "little") + len(blob) - len(honest.record)
        blob = blob[:4] + length.to_bytes(4, "little") + blob[8:]
        yield f"a field for {name}", "release", Parts(blob, honest.ledger)
    yield "a model that is none", "publish", Parts(b"FNDC" + b"\x00" * 100, NO_CALL.ledger)
    yield "a pickle", "release", Parts(b"\x80\x04\x95", honest.ledger)
    yield "masks of a plan without", "hello", Parts(b"", NO_CALL.ledger, b"{}")
    yield "shares", "share", Parts(b"", NO_CALL.ledger, b"{}")
    yield "an unmasking", "unmask", Parts(b"", NO_CALL.ledger, b"{}")
    yield "a rehearsal of its own", "preflight", Parts(b"", NO_CALL.ledger, b"x" * 100)
    yield "junk about ledgers", "witness", Parts(b"", b"\xff" * 1000)
    for action in ("erase", "ledger", "policy", "approve", "", "release\x00", "__class__"):
        yield f"the action {action!r}", action, honest
    yield "more than the plan needs", "publish", Parts(b"r" * 2_000_000, NO_CALL.ledger)


def test_hostile_code_in_the_couriers_place_gets_what_the_plan_releases_and_no_more(town, tmp_path):
    """The launcher circumvented: everything that runs as the courier's user is the enemy's."""
    before = town.digests("data", "plans", "kit")
    identity = (town.home / "identity.pem").read_bytes()
    loot = town.socket.parent / "loot"

    def work():
        for name, action, parts in _hostile_requests(town):
            with pytest.raises(AgentError) as caught:  # noqa: PT012
                ask(town.socket, action, parts, patience_s=20)
                pytest.fail(f"{name} was answered")
            assert CANARY not in str(caught.value), name
            assert str(town.home) not in str(caught.value), name
        got = [ask(town.socket, "release", town.request) for _ in range(3)]
        assert len({parts.record for parts in got}) == 1
        loot.write_bytes(got[0].record)

    town.as_user(COURIER, work)
    assert town.digests("data", "plans", "kit") == before
    assert (town.home / "identity.pem").read_bytes() == identity
    update = codec.decode(loot.read_bytes(), PrivateUpdate, Shapes.of_plan(town.owned.plan))
    town.stop()
    types = [record["type"] for record in town.owned.records()]
    assert types.count("DEBIT") == types.count("RELEASE") == 1
    assert set(types) <= {"GENESIS", "POLICY", "PLAN", "REFUSAL", "COSIGN", "DEBIT", "RELEASE"}
    assert types.count("REFUSAL") >= 4
    (debit,) = town.owned.records("DEBIT")
    event = town.owned.plan.releases[0]
    assert (debit["kind"], debit["seq"]) == (event.kind, update.debit_seq)
    assert set(ACTIONS) >= {"release", "publish"}
    wait_for(lambda: town.agent.poll() == 0)
