"""A silo's two long-running programs: the agent, which has the data, and the courier.

`run` keeps both going from one terminal, each as the OS user that owns its folder where it may
choose users; `deploy/systemd` does the same with more walls.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from rich.markup import escape

from fondaco.shared import logs
from fondaco.shared.console import err_console
from fondaco.shared.errors import ConfigError
from fondaco.shared.files import takes_lock
from fondaco.shared.parts import Parts
from fondaco.shared.supervisor import FLOWER_ENV, Event, Program, Supervisor
from fondaco.shared.tls_check import check_tls

from .answers import public_reason
from .boundary.confinement import confine
from .boundary.desk import PASSED, Desk, listen, passed_socket
from .boundary.frames import ACTIONS
from .courier_folder import CA, account_of, acting_as, load_node_key
from .deployed import DeployedAgent
from .deployment import FOLDER, CourierSettings, read_courier, read_deployment
from .pulse import Pulse
from .reach import ask_registration

AGENT, SUPERNODE, SUPEREXEC = "agent", "supernode", "superexec"
LOCK = "agent.lock"
SUPEREXEC_POLL_S = "0.2"


def socket_path(home: Path) -> Path:
    """Return where the agent of an owner's folder listens.

    Raises:
        ConfigError: the folder has no courier yet.
    """
    return read_deployment(home).socket


def serve_agent(home: Path, path: Path) -> None:
    """Be the agent of `home` until SIGTERM; listens at `path` unless a socket was passed on.

    Raises:
        ConfigError: nothing is approved yet, or another agent listens there.
    """
    logs.install("fondaco-agent")
    lock = only_agent(home)
    deployed = DeployedAgent(home)
    listening = passed_socket() or listen(path)
    network = confine()
    logs.event(
        "agent.started",
        silo_id=deployed.silo_id,
        plan=deployed.agent.plan.digest,
        network=network,
    )
    signal.signal(signal.SIGTERM, _stop)
    desk = Desk(
        listening,
        _noted(deployed, Pulse(home)),
        reason=public_reason,
        actions=ACTIONS,
        limits=deployed.limits,
        uids={os.geteuid(), path.parent.stat().st_uid},
        refused=lambda why: logs.event("agent.turned_away", why=why),
    )
    try:
        desk.serve()
    finally:
        os.close(lock)
        logs.event("agent.stopped")


def only_agent(home: Path) -> int:
    """Return the open lock of a folder that no other agent serves.

    Raises:
        ConfigError: one does.
    """
    handle = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not takes_lock(handle):
        os.close(handle)
        raise ConfigError(f"another agent serves {home}; stop that one first")
    return handle


def _noted(deployed: DeployedAgent, pulse: Pulse) -> Callable[[str, Parts], Parts]:
    """Return what answers, and notes of every answer how long it took and how large it was."""

    def answer(action: str, parts: Parts) -> Parts:
        start = time.monotonic()
        try:
            said = deployed.answer(action, parts)
        except Exception as error:
            logs.failed(error, "agent.refused", action=action)
            raise
        sizes = sum(map(len, parts)), sum(map(len, said))
        logs.event(
            "agent.answered",
            action=action,
            seconds=round(time.monotonic() - start, 3),
            received=sizes[0],
            sent=sizes[1],
        )
        pulse.beat(action, *sizes)
        return said

    return answer


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise SystemExit(0)


def run(home: Path) -> None:
    """Keep agent and courier of an owner's folder going until SIGTERM or Ctrl-C.

    The agent's socket is bound here and passed on, so that whoever asks while the agent is
    started again waits instead of failing.

    Raises:
        ConfigError: something is missing that both need; the text says how to get it.
    """
    logs.install("fondaco-run")
    path = socket_path(home)
    courier = path.parent
    users = _user_of(home), _user_of(courier)
    with acting_as(account_of(courier)):
        settings = read_courier(courier)
    with acting_as(account_of(home)):  # what is written stays that user's
        DeployedAgent(home)  # says at once what is missing
    listening = listen(path, users[1])
    agent = agent_program(home, path, listening, users[0])
    programs = [agent, *courier_programs(courier, settings, users[1])]
    supervisor = Supervisor(programs, _teller(courier, settings))
    logs.event("courier.started", silo_id=settings.silo_id, superlink=settings.superlink)
    try:
        supervisor.run()
    finally:
        listening.close()
        path.unlink(missing_ok=True)


def serve_courier(folder: Path) -> None:
    """Keep a courier's SuperNode and SuperExec going until SIGTERM.

    Raises:
        ConfigError: the folder is none of a courier.
    """
    logs.install("fondaco-courier")
    settings = read_courier(folder)
    logs.event("courier.started", silo_id=settings.silo_id, superlink=settings.superlink)
    programs = courier_programs(folder, settings, None)
    Supervisor(programs, _teller(folder, settings)).run()
    logs.event("courier.stopped")


def agent_program(home: Path, path: Path, listening: socket.socket, user: int | None) -> Program:
    """Return the agent's program: without a network of its own where this user may take it away."""
    command = [sys.executable, "-m", "fondaco.client.cli", "run", "--home", str(home.resolve())]
    command += ["--agent-only", "--socket", str(path)]
    environment = {**os.environ, **FLOWER_ENV, PASSED: str(listening.fileno())}
    become: list[str] = []
    if user is not None:
        become = ["setpriv", f"--reuid={user}", f"--regid={home.stat().st_gid}"]
        become += ["--clear-groups", "--pdeathsig", "KILL", "--"]
    return Program(
        name=AGENT,
        command=[*without_network(), *become, *command],
        environment=environment,
        folder=home,
        passed=(listening.fileno(),),
    )


def without_network() -> list[str]:
    """Return the command that takes the network away from what follows; empty if it may not.

    Root may; others may where the system lets them have user namespaces.
    """
    unshare = shutil.which("unshare")
    how = ["--net"] if os.geteuid() == 0 else ["--map-current-user", "--net"]
    if unshare is None:
        return []
    tried = subprocess.run([unshare, *how, "true"], capture_output=True, check=False)  # noqa: S603
    return [unshare, *how, "--"] if tried.returncode == 0 else []


def courier_programs(folder: Path, settings: CourierSettings, user: int | None) -> list[Program]:
    """Return Flower's programs, whose client program is our launcher."""
    folder = folder.resolve()
    tools = Path(sys.executable).parent
    runtime = f"127.0.0.1:{settings.port}"
    secret = str(folder / "superexec.secret")
    environment = {
        **_plain_environment(),
        **FLOWER_ENV,
        "PATH": str(folder / "bin"),  # SuperExec finds our launcher, and nothing else
        "HOME": str(folder),
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": SUPEREXEC_POLL_S,
        FOLDER: str(folder),
    }
    node = ["--superlink", settings.superlink, "--root-certificates", str(folder / "ca.pem")]
    node += ["--auth-supernode-private-key", str(folder / "node-key")]
    node += ["--isolation", "process", "--host", "127.0.0.1", "--port", str(settings.port)]
    node += ["--superexec-auth-secret-file", secret]
    executor = ["--runtime-api-address", runtime, "--insecure"]  # on the loopback address alone
    executor += ["--superexec-auth-secret-file", secret]
    group = user and folder.stat().st_gid
    return [
        Program(
            name=name,
            command=[str(tools / program), *arguments],
            environment=environment,
            folder=folder,
            uid=user,
            gid=group,
        )
        for name, program, arguments in (
            (SUPERNODE, "flower-supernode", node),
            (SUPEREXEC, "flower-superexec", executor),
        )
    ]


def _plain_environment() -> dict[str, str]:
    """Return what a program needs of ours, and nothing that may hold a password."""
    wanted = ("LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "SSL_CERT_FILE", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in wanted if name in os.environ}


def _user_of(folder: Path) -> int | None:
    """Return who must run what works in `folder`, None where that is oneself.

    Raises:
        ConfigError: it is somebody else's, and only root could be them.
    """
    owner = folder.stat().st_uid
    if owner == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise ConfigError(f"{folder} belongs to OS user {owner}; run this as that user, or as root")
    return owner


def _teller(courier: Path, settings: CourierSettings) -> Event:
    """Return what says which program ended, and why no coordinator is reached.

    Flower's own words for that name a code; ours say what to do. They hold addresses alone.
    """

    def tell(what: str, name: str, number: int) -> None:
        if what == "ended":
            code = {"exit_code": number} if number >= 0 else {"signal": -number}
            logs.event("courier.ended", program=name, **code)
        if name == SUPERNODE and what in ("started", "ended"):
            try:
                # In a container the folder may be a volume of root's, lent to a group.
                with nullcontext() if os.geteuid() else acting_as(account_of(courier)):
                    _check_reach(courier, settings.superlink)
            except ConfigError as error:
                err_console.print(escape(str(error)), highlight=False, soft_wrap=True)

    return tell


def _check_reach(courier: Path, superlink: str) -> None:
    """Ask the coordinator whether it is the right one and knows this silo's node.

    Raises:
        ConfigError: in words that say what to do.
    """
    ca = (courier / CA).read_text(encoding="utf-8")
    check_tls(superlink, ca)
    said = ask_registration(superlink, ca, load_node_key(courier))
    if said == "unknown":
        raise ConfigError(
            f"the coordinator at {superlink} does not know this silo's node key; hand it the "
            "registration file again (fondaco-client keys --registration), for its operator to "
            "run fondaco-server register"
        )
    if said == "refused":
        raise ConfigError(f"{superlink} refused this node's signature: set this machine's clock")
