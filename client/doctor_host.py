"""What `doctor` looks at outside of the owner's papers: the machine, the network, the code."""

import base64
import hashlib
import json
import os
import pwd
import shutil
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from fondaco.shared.address import split_address
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import ConfigError
from fondaco.shared.files import folder_name
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.tls_check import Contact, contact

from .courier_folder import NODE_KEY, SECRET, load_node_key
from .deployment import read_deployment
from .doctor import LOOKS, Check, Look, Patient, State
from .kit_files import CA, kit_file
from .reach import ask_registration

PACKAGE = "fondaco"
SWITCH = "FLWR_TELEMETRY_ENABLED"
MOST_SKEW_S, ODD_SKEW_S = 60, 10
"""Flower takes a node's signature for 300 s."""
SOON_DAYS = 14
REACH_S = 10.0
RECORD_BYTES = 4096
"""A ledger's record with its index, and what others keep of it [bytes]."""
SPARE_BYTES = 256 * 2**20
SECRETS = (
    "*.pem*",
    "data/*.npz",
    "erased/*",
    "ledgers/*",
    "outbox/*/*.bin",
    "quarantine/*",
    "secrets/*",
    "sessions/*",
)
"""What nobody else may read, in an owner's folder."""


def look_at_installation(patient: Patient) -> Iterator[Check]:
    """Are the installed files those of the wheel?"""
    del patient
    yield installed_files(_distribution())


def installed_files(dist: Distribution | None) -> Check:
    """Hold the installed files of a distribution against the hashes of its RECORD."""
    if dist is None:
        fix = "install the wheel with pip"
        return Check(name="installation", state="warn", seen="not installed by pip", fix=fix)
    if json.loads(dist.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
        return Check(
            name="installation",
            state="warn",
            seen="an editable install: whoever may write its folder changes what runs here",
            fix="install the wheel, with hashes: see deploy/",
        )
    hashed = {Path(str(f.locate())): f.hash.value for f in dist.files or [] if f.hash}
    odd = [path.name for path, value in hashed.items() if _sha256(path) != value]
    if odd or not hashed:
        seen = f"{len(odd)} of {len(hashed)} files are not as they were installed: {odd[:3]}"
        return Check(
            name="installation",
            state="fail",
            seen=seen,
            fix="find out who changed them, then install the wheel again",
        )
    seen = f"{PACKAGE} {dist.version}, {len(hashed)} files as in the wheel"
    return Check(name="installation", state="ok", seen=seen)


def look_at_environment(patient: Patient) -> Iterator[Check]:
    """Would Flower report home?"""
    del patient
    said = os.environ.get(SWITCH, "0")
    if said != "0":
        fix = f"unset {SWITCH}, or set it to 0; fondaco-client run does so for what it starts"
        seen = f"{SWITCH}={said}: Flower's own commands would send usage data to its makers"
        yield Check(name="environment", state="warn", seen=seen, fix=fix)
        return
    yield Check(name="environment", state="ok", seen="telemetry is off in all that run starts")


def look_at_permissions(patient: Patient) -> Iterator[Check]:
    """Can anybody else read keys, ledger or rows?"""
    home = patient.home
    open_ones = [] if patient.of_simulation else [p for p in [home] if _open_to_others(p)]
    open_ones += [p for pattern in SECRETS for p in home.glob(pattern) if _open_to_others(p)]
    if patient.deployment is not None:
        courier = Path(patient.deployment.courier)
        if courier.resolve().is_relative_to(home):
            fix = "move it out, then fondaco-client init --kit KIT --courier FOLDER"
            seen = f"the courier's folder {courier} lies inside of {home}"
            yield Check(name="permissions", state="fail", seen=seen, fix=fix)
        places = [courier, courier / NODE_KEY, courier / SECRET]
        open_ones += [path for path in places if _open_to_others(path)]
    ours = home.stat().st_uid
    strangers = [path for path in home.rglob("*") if _uid(path, ours) != ours]
    if open_ones:
        seen = f"others may read {open_ones[0]}" + _more(open_ones)
        fix = f"chmod -R go= {' '.join(sorted({str(_root(p, home)) for p in open_ones}))}"
        yield Check(name="permissions", state="fail", seen=seen, fix=fix)
    if strangers:
        seen = f"{strangers[0]} belongs to another user than {home}" + _more(strangers)
        fix = f"chown -R {ours} {home}"
        yield Check(name="permissions", state="fail", seen=seen, fix=fix)
    if not (open_ones or strangers):
        yield Check(name="permissions", state="ok", seen="keys, ledger and rows are yours alone")


def look_at_users(patient: Patient) -> Iterator[Check]:
    """Do agent and courier run as two OS users?"""
    if patient.deployment is None:
        return
    courier = Path(patient.deployment.courier)
    ours, theirs = patient.home.stat().st_uid, courier.stat().st_uid
    seen = f"agent: {_user(ours)}, courier: {_user(theirs)}"
    if not ours:
        yield Check(
            name="OS users",
            state="warn",
            seen=f"{seen}: the agent, which reads your rows, would have the rights of root",
            fix=f"give the folder to a user of its own: chown -R OWNER {patient.home}; run as root "
            "then starts the agent as that user",
        )
        return
    if not theirs:
        yield Check(
            name="OS users",
            state="warn",
            seen=f"{seen}: what talks to the network would have the rights of root",
            fix=f"give the courier's folder to a user of its own: chown -R OTHER_USER {courier}",
        )
        return
    if ours != theirs:
        yield Check(name="OS users", state="ok", seen=seen)
        return
    yield Check(
        name="OS users",
        state="warn",
        seen=f"agent and courier both run as {_user(ours)}: if the courier, which talks to the "
        "network, were taken over, it could read your keys and rows",
        fix=f"as root: chown -R OTHER_USER {courier}; run then starts each as its own user",
    )


def look_at_disk(patient: Patient) -> Iterator[Check]:
    """Is there room for what a plan writes?"""
    free = shutil.disk_usage(patient.home).free
    need = SPARE_BYTES + (disk_need(patient.plan) if patient.plan else 0)
    rows = patient.owner.rows / "rows.npz"
    need += 2 * rows.stat().st_size if rows.is_file() else 0
    seen = f"{_size(free)} free, the plan needs about {_size(need)}"
    if free >= need:
        yield Check(name="disk", state="ok", seen=seen)
        return
    fix = f"make room where {patient.home} lies: a full disk stops the agent before it releases"
    yield Check(name="disk", state="fail", seen=seen, fix=fix)


def disk_need(plan: RunPlan) -> int:
    """Return about how much a plan makes an agent write [bytes]."""
    word = (plan.ring_bits or 64) // 8
    outbox = sum(event.dim * word for event in plan.releases)
    models = Shapes.of_plan(plan).most_bytes() * (len({e.round_num for e in plan.releases}) + 2)
    ledgers = RECORD_BYTES * 4 * len(plan.releases) * (1 + plan.cohort.n_silos)
    return outbox + models + ledgers


def look_at_network(patient: Patient) -> Iterator[Check]:
    """Is the coordinator there, is it the right one, do the clocks agree, does it know us?"""
    if patient.deployment is None:
        fix = "fondaco-client init --kit KIT --home HOME, with the coordinator's kit"
        yield Check(name="port", state="warn", seen="no coordinator was joined yet", fix=fix)
        return
    address = patient.deployment.superlink
    ca = kit_file(patient.home, CA).read_text(encoding="utf-8")
    closed = _closed(address)
    try:
        met = contact(address, ca, REACH_S)
    except ConfigError as error:
        seen, _, fix = str(error).partition("; ")
        if closed:
            yield Check(name="port", state="fail", seen=seen, fix=fix)
        else:
            yield Check(name="port", state="ok", seen=f"{address} can be reached")
            yield Check(name="TLS", state="fail", seen=seen, fix=fix)
        later = "could not be compared: the coordinator did not answer"
        yield Check(name="clock", state="warn", seen=later, fix="mend the connection first")
        later = "could not be asked: the coordinator did not answer"
        yield Check(name="registration", state="warn", seen=later, fix="mend the connection first")
        return
    yield Check(name="port", state="ok", seen=f"{address} can be reached")
    yield _certificate(met)
    yield _clock(met.clock_offset_s)
    yield _registration(patient, address, ca)


def _closed(address: str) -> bool:
    try:
        socket.create_connection(split_address(address), REACH_S).close()
    except OSError:
        return True
    return False


def _certificate(met: Contact) -> Check:
    until = datetime.fromtimestamp(met.expires, UTC)
    days = (until - datetime.now(UTC)).days
    seen = f"{met.tls}, signed by the kit's authority, good until {until:%Y-%m-%d}"
    if days >= SOON_DAYS:
        return Check(name="TLS", state="ok", seen=seen)
    fix = "the coordinator should run fondaco-server rotate certificate"
    return Check(name="TLS", state="warn", seen=f"{seen}, {days} days", fix=fix)


def _clock(offset_s: int | None) -> Check:
    if offset_s is None:
        seen = "could not be compared: the coordinator did not tell the time"
        return Check(name="clock", state="warn", seen=seen, fix="see that this machine uses NTP")
    way = "ahead of" if offset_s > 0 else "behind"
    seen = f"{abs(offset_s)} s {way} the coordinator's" if offset_s else "as the coordinator's"
    if abs(offset_s) <= ODD_SKEW_S:
        return Check(name="clock", state="ok", seen=seen)
    state: State = "fail" if abs(offset_s) > MOST_SKEW_S else "warn"
    fix = "set the clock (timedatectl set-ntp true); if yours is right, tell the coordinator"
    return Check(name="clock", state=state, seen=seen, fix=fix)


def _registration(patient: Patient, address: str, ca: str) -> Check:
    name, courier = "registration", Path(read_deployment(patient.home).courier)
    try:
        key = load_node_key(courier)
    except PermissionError:
        fix = "run doctor as root, or as the courier's user"
        return Check(name=name, state="warn", seen=f"{courier} cannot be read by you", fix=fix)
    answer = ask_registration(address, ca, key)
    old = courier / f"{NODE_KEY}.old"
    if answer == "registered" and old.exists():
        seen = "the coordinator knows the new node key; the old one is still here"
        return Check(name=name, state="warn", seen=seen, fix=f"rm {old}")
    if answer == "registered":
        return Check(name=name, state="ok", seen="the coordinator knows the courier's key")
    if answer == "refused":
        fix = "set this machine's clock; the coordinator takes signatures of the last minutes alone"
        seen = "the coordinator does not take the courier's signature"
        return Check(name=name, state="fail", seen=seen, fix=fix)
    again = " --replace" if old.exists() else ""
    fix = (
        f"hand it {folder_name(patient.owner.silo_id)}.registration.json, for fondaco-server "
        f"register FILE{again}; fondaco-client keys --home {patient.home} --registration . writes "
        "that file again"
    )
    seen = "the coordinator does not know the courier's key, or its SuperLink has just started"
    return Check(name=name, state="fail", seen=seen, fix=fix)


def _distribution() -> Distribution | None:
    try:
        return distribution(PACKAGE)
    except PackageNotFoundError:
        return None


def _sha256(path: Path) -> str:
    """Return the hash of a file as RECORD writes it, "" if it is gone. Source: PEP 376."""
    try:
        digest = hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return ""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _open_to_others(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.lstat().st_mode) & 0o077)
    except (FileNotFoundError, PermissionError):
        return False  # not there, or where we cannot look either


def _uid(path: Path, gone: int) -> int:
    """Return whose a file is; `gone` where a running agent has just renamed it."""
    try:
        return path.lstat().st_uid
    except FileNotFoundError:
        return gone


def _root(path: Path, home: Path) -> Path:
    return home if path.is_relative_to(home) else path


def _more(paths: list[Path]) -> str:
    return f" and {len(paths) - 1} more" if len(paths) > 1 else ""


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _size(number: int) -> str:
    gib = number / 2**30
    return f"{gib:.1f} GiB" if gib >= 1 else f"{number / 2**20:.0f} MiB"


EVERYTHING: tuple[Look, ...] = (
    look_at_installation,
    look_at_environment,
    look_at_permissions,
    look_at_users,
    look_at_network,
    *LOOKS,
    look_at_disk,
)
"""All that `doctor` looks at."""
