"""An owner joins, or follows the coordinator to newer terms, by the kit that the coordinator sent.

Formal guarantee: no key is ever overwritten, and nothing of a kit is taken over that names another
coordinator, another silo or other keys than those known here. Every step writes whole files that
the same kit would write again, so whoever is killed on the way runs it again.
"""

import fcntl
import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fondaco.shared.audit_log import AuditLog
from fondaco.shared.catalogue import load_catalogue
from fondaco.shared.chain.keys import COORDINATOR, PublicKey, key_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.files import folder_name, write_durably
from fondaco.shared.kit import Kit, Registration, fingerprint
from fondaco.shared.plan_text import to_toml
from fondaco.shared.privacy.plan import RunPlan

from .courier_folder import (
    Account,
    account_of,
    acting_as,
    check_courier,
    check_place,
    make_courier,
    named_account,
    node_public,
    rotate_node_key,
)
from .deployment import (
    COURIER,
    DEPLOYMENT,
    PORT,
    CourierSettings,
    Deployment,
    read_courier,
    read_deployment,
    write_deployment,
)
from .kit_checks import check_coordinator, check_known, has_key, read_kit
from .kit_files import CA, CATALOGUE, KIT, NEWEST, PLAN, keep_catalogue, kit_file
from .owner import FACTS, Owner

AUDIT = "audit.jsonl"
SOURCE = "source.toml"
EXAMPLE = files(__package__) / "source_example.toml"
"""The commented template of SOURCE."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Somebody whose key the plan names.

    Attributes:
        name: the silo's id, or `coordinator`.
        key: public text.
        fingerprint: to compare with what its owner says.
        state: `yours`, `pinned`, `new`, or `changed` where another key of that name is pinned.
    """

    name: str
    key: str
    fingerprint: str
    state: str


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What an owner has after taking over a kit, for people and machines.

    Attributes:
        coordinator: fingerprint.
        own: fingerprint of this owner's key.
        registration: file to hand back, "" where the plan knows the keys already.
        plan: digest, "" before there is one.
        changed: what the kit brought that was not here before.
    """

    silo_id: str
    home: str
    courier: str
    superlink: str
    coordinator: str
    own: str
    registration: str
    plan: str
    peers: tuple[Peer, ...]
    changed: tuple[str, ...]

    def of_state(self, state: str) -> list[Peer]:
        """Return the peers whose key is in this state."""
        return [peer for peer in self.peers if peer.state == state]

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What may be said at `init` beside kit and folder; None and "" leave it as it was.

    Attributes:
        courier: the courier's folder.
        courier_user: OS user whom it belongs to.
        port: on the loopback address, between Flower's own processes.
        coordinator: fingerprint that the kit's coordinator must have.
        out: where the registration goes: a file, or a folder.
    """

    courier: Path | None = None
    courier_user: str = ""
    port: int | None = None
    coordinator: str = ""
    out: Path = Path()


def join(kit_path: Path, home: Path, wishes: Wishes) -> Joined:
    """Make or renew an owner's folder and its courier's by a kit, and return what to compare.

    Raises:
        ConfigError: the kit is not for this folder, or older than the one before it, and
            nothing was changed; or one of the folders cannot be written.
    """
    kit, blob = read_kit(kit_path)
    plan = kit.run_plan()
    home = home.resolve()
    check_coordinator(kit, wishes.coordinator)
    courier, account = _courier_place(home, wishes)
    with _alone(home) as keeper:
        with acting_as(keeper):
            check_known(home, kit, replaced=bool(wishes.coordinator))
        check_courier(courier, kit.silo_id, account)
        with acting_as(keeper):
            owner = _owner(home, kit)
            before = _brought(home)
            _keep_kit(home, kit, blob, plan)
    make_courier(courier, _settings(kit, courier, wishes), kit.ca, account)
    with acting_as(keeper):
        there = Deployment(
            superlink=kit.superlink, coordinator=kit.coordinator, courier=str(courier)
        )
        write_deployment(home, there)
        _keep_source(home)
    _write_down(owner, kit, blob)
    return Joined(
        silo_id=owner.silo_id,
        home=str(home),
        courier=str(courier),
        superlink=kit.superlink,
        coordinator=fingerprint(kit.coordinator),
        own=fingerprint(owner.identity.public.text()),
        registration="" if plan else str(write_registration(owner, courier, wishes.out)),
        plan=plan.digest if plan else "",
        peers=tuple(_peers(owner, kit)),
        changed=tuple(n for n, value in _brought(home).items() if before.get(n) != value),
    )


def pin_peers(home: Path, joined: Joined, replaced: Collection[str] = ()) -> None:
    """Trust the keys of the newest kit's plan; their owners have confirmed them.

    Args:
        home: the owner's folder.
        joined: what `join` returned.
        replaced: names of peers whose pinned key gives way to a newer one.

    Raises:
        ConfigError: another key of a peer is pinned who is not among `replaced`.
    """
    changed = [peer for peer in joined.of_state("changed") if peer.name not in replaced]
    if changed:
        raise ConfigError(
            f"{changed[0].name!r} has another key than the one pinned here. Ask its owner for the "
            f"fingerprint; if it is {changed[0].fingerprint}, add --replace-peer {changed[0].name}"
        )
    gone = joined.of_state("changed")
    wanted = [*joined.of_state("new"), *gone]
    with acting_as(account_of(home)):
        owner = Owner.open(home)
        names = [PublicKey.from_text(peer.key).name for peer in gone]
        owner.pin([PublicKey.from_text(peer.key) for peer in wanted], instead_of=names)
    audit(owner, "policy", pinned=len(wanted))


def write_registration(owner: Owner, courier: Path, out: Path) -> Path:
    """Write the public keys that the coordinator registers, and return where.

    Args:
        owner: whose.
        courier: the courier's folder.
        out: a file, or a folder that exists.

    Raises:
        ConfigError: the node key is missing or damaged.
    """
    with acting_as(account_of(courier)):
        node_key = node_public(courier)
    registration = Registration(
        silo_id=owner.silo_id, identity=owner.identity.public.text(), node_key=node_key
    )
    path = out / f"{folder_name(owner.silo_id)}.registration.json" if out.is_dir() else out
    write_durably(path.absolute(), registration.to_bytes(owner.identity))
    return path.absolute()


def renew_node_key(owner: Owner) -> None:
    """Replace the courier's key; the old one stays beside it as `.old` until it is removed.

    Raises:
        ConfigError: the owner has no courier, or the last renewal is not done with.
    """
    courier = Path(read_deployment(owner.folder).courier)
    with acting_as(account_of(courier)):
        public = rotate_node_key(courier)
    audit(owner, "rotate", what="node key", silo_id=owner.silo_id, key=fingerprint(public))


def audit(owner: Owner, action: str, **fields: str | int | float) -> None:
    """Write down who did what in an owner's folder; a simulated silo keeps no such log."""
    if (owner.folder / FACTS).is_file():
        with acting_as(account_of(owner.folder)):
            AuditLog(owner.folder / AUDIT).write(action, **fields)


def _write_down(owner: Owner, kit: Kit, blob: bytes) -> None:
    audit(
        owner,
        "init",
        silo_id=owner.silo_id,
        kit=f"sha256:{hashlib.sha256(blob).hexdigest()}",
        coordinator=fingerprint(kit.coordinator),
        address=kit.superlink,
    )


@contextmanager
def _alone(home: Path) -> Iterator[Account]:
    """Make the owner's folder, keep other inits out of it, and give whose it is.

    A folder that was made here, and in which nothing was done, is removed again.
    """
    made = not home.exists()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    keeper = account_of(home)
    handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield keeper
    finally:
        if made and not any(home.iterdir()):
            home.rmdir()
        os.close(handle)


def _courier_place(home: Path, wishes: Wishes) -> tuple[Path, Account]:
    """Return the courier's folder and whose it is or will be."""
    known = Path(read_deployment(home).courier) if (home / DEPLOYMENT).is_file() else None
    asked = wishes.courier.resolve() if wishes.courier else None
    if known and asked and asked != known and known.exists():
        raise ConfigError(
            f"this owner's courier is in {known}; stop it, move that folder to {asked}, and run "
            "this again"
        )
    folder = asked or known or home.with_name(f"{home.name}-courier")
    check_place(folder, home)
    if folder.exists():
        account = account_of(folder)
        if wishes.courier_user and named_account(wishes.courier_user).uid != account.uid:
            raise ConfigError(
                f"{folder} belongs to {account.name!r}; give it to {wishes.courier_user!r} with "
                f"chown -R {wishes.courier_user} {folder}, then run this again"
            )
        return folder, account
    if wishes.courier_user:
        return folder, named_account(wishes.courier_user)
    return folder, Account("this user", os.geteuid(), os.getegid())


def _owner(home: Path, kit: Kit) -> Owner:
    return Owner.open(home) if has_key(home) else Owner.make(home, kit.silo_id)


def _keep_kit(home: Path, kit: Kit, blob: bytes, plan: RunPlan | None) -> None:
    (home / KIT).mkdir(mode=0o700, exist_ok=True)
    if plan is not None:
        incoming = kit_file(home, "catalogue.incoming")
        write_durably(incoming, kit.catalogue.encode())
        try:
            load_catalogue(incoming, plan.catalogue_digest)  # before anything is replaced by it
            keep_catalogue(home, plan.catalogue_digest)
            incoming.replace(kit_file(home, CATALOGUE))
        finally:
            incoming.unlink(missing_ok=True)
        write_durably(kit_file(home, PLAN), to_toml(plan).encode())
    write_durably(kit_file(home, CA), kit.ca.encode())
    write_durably(kit_file(home, NEWEST), blob)


def _settings(kit: Kit, courier: Path, wishes: Wishes) -> CourierSettings:
    port = wishes.port or PORT
    if not wishes.port and (courier / COURIER).is_file():
        port = read_courier(courier).port
    address = Deployment(superlink="", coordinator="", courier=str(courier)).socket
    return CourierSettings(
        silo_id=kit.silo_id, superlink=kit.superlink, socket=str(address), port=port
    )


def _keep_source(home: Path) -> None:
    """Put the commented template of the column mapping where the owner edits it."""
    if not (home / SOURCE).exists():
        write_durably(home / SOURCE, EXAMPLE.read_bytes())


def _brought(home: Path) -> dict[str, bytes]:
    """Return what the newest kit brought, by what an owner calls it."""
    places = {
        "certificate authority": kit_file(home, CA),
        "plan": kit_file(home, PLAN),
        "catalogue": kit_file(home, CATALOGUE),
        "address": home / DEPLOYMENT,
    }
    return {name: path.read_bytes() for name, path in places.items() if path.is_file()}


def _peers(owner: Owner, kit: Kit) -> Iterator[Peer]:
    pinned = {key.name: key.text() for key in [*owner.peers(), owner.identity.public]}
    for key in (kit.coordinator, *kit.peers) if kit.peers else ():
        bearer = PublicKey.from_text(key).name
        state = "new" if bearer not in pinned else "pinned" if pinned[bearer] == key else "changed"
        yield Peer(
            name="coordinator" if bearer == COORDINATOR else silo_of(bearer),
            key=key,
            fingerprint=fingerprint(key),
            state="yours" if key == owner.identity.public.text() else state,
        )


def silo_of(name: str) -> str:
    """Return whose key bears this name."""
    return unquote(name.removeprefix(key_name("")))
