"""Whether a kit may be taken over into an owner's folder."""

from datetime import UTC, datetime
from pathlib import Path

from fondaco.shared.chain.keys import PublicKey, key_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.kit import MAX_KIT, Kit, fingerprint

from .kit_files import NEWEST, kit_file
from .owner import BEGUN, FACTS, KEY, Owner


def read_kit(path: Path) -> tuple[Kit, bytes]:
    """Return the kit in a file, and the file.

    Raises:
        ConfigError: it cannot be read, or is no whole kit.
    """
    try:
        with path.open("rb") as file:
            blob = file.read(MAX_KIT + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as a kit: {error.strerror}") from None
    return Kit.from_bytes(blob), blob


def has_key(home: Path) -> bool:
    """Return whether an owner's folder has been made, whole."""
    keys = home / KEY, home / f"{KEY}.new"
    return (home / FACTS).is_file() and any(key.is_file() for key in keys)


def check_coordinator(kit: Kit, told: str) -> None:
    """Hold a kit against the fingerprint that the coordinator told over another channel.

    Args:
        kit: as it came.
        told: in groups or not; "" if nothing was told.

    Raises:
        ConfigError: it is another one.
    """
    seen = fingerprint(kit.coordinator)
    if told and "".join(told.split()).lower() != "".join(seen.split()):
        raise ConfigError(
            f"the kit's coordinator has the fingerprint {seen}, not {told}; do not use this kit, "
            "ask the coordinator for another"
        )


def check_known(home: Path, kit: Kit, *, replaced: bool) -> None:
    """Hold a kit against what is known in an owner's folder.

    Args:
        home: the folder, made or not.
        kit: as it came.
        replaced: whether the coordinator may be another than before.

    Raises:
        ConfigError: it is of somebody else, for somebody else, or out of date.
    """
    _check_place(home)
    newest = kit_file(home, NEWEST)
    if newest.is_file():
        _check_newer(read_kit(newest)[0], kit, replaced=replaced)
    if has_key(home):
        _check_own(home, kit)
    elif (home / BEGUN).is_file():
        raise ConfigError(
            f"{home / KEY} is gone, but its ledger is in use; bring the key back from a backup"
        )
    elif _named(kit) is not None:
        raise ConfigError(
            f"the kit's plan names a key of {kit.silo_id!r}, and {home} holds none; name the "
            "folder where this owner's keys are, or ask the coordinator for a kit without a plan"
        )


def _check_place(home: Path) -> None:
    """Refuse a folder of something else: making it an owner's would close it to everybody."""
    if (home / FACTS).is_file() or not home.is_dir():
        return
    torn = Path(FACTS).with_suffix(".part").name
    others = sorted(path.name for path in home.iterdir() if path.name != torn)
    if others:
        raise ConfigError(
            f"{home} holds {others[0]!r} and is no owner's folder; name a new one with --home"
        )


def _check_newer(before: Kit, kit: Kit, *, replaced: bool) -> None:
    if before.coordinator != kit.coordinator and not replaced:
        raise ConfigError(
            f"the kit is of another coordinator ({fingerprint(kit.coordinator)}) than the one "
            f"joined here ({fingerprint(before.coordinator)}). If it has a new key, have it "
            "read the new fingerprint to you, and add --coordinator FINGERPRINT"
        )
    if before.silo_id == kit.silo_id and before.issued > kit.issued:
        raise ConfigError(
            f"the kit is of {_day(kit.issued)}, older than the one of {_day(before.issued)} "
            "that was used here; ask the coordinator for a new one"
        )


def _check_own(home: Path, kit: Kit) -> None:
    owner = Owner.open(home)
    if owner.silo_id != kit.silo_id:
        raise ConfigError(
            f"the kit is for {kit.silo_id!r}, {home} is {owner.silo_id!r}'s; use another "
            f"--home, or ask the coordinator for the kit of {owner.silo_id!r}"
        )
    named, own = _named(kit), owner.identity.public.text()
    if named not in (None, own):
        raise ConfigError(
            f"the kit's plan names another key of {kit.silo_id!r} ({fingerprint(str(named))}) "
            f"than {home / KEY} ({fingerprint(own)}); hand the coordinator a registration again "
            "(fondaco-client keys --registration FILE)"
        )


def _named(kit: Kit) -> str | None:
    """Return the key that the kit's plan names for this silo, None without a plan."""
    return {PublicKey.from_text(key).name: key for key in kit.peers}.get(key_name(kit.silo_id))


def _day(issued: int) -> str:
    return f"{datetime.fromtimestamp(issued, UTC):%Y-%m-%d %H:%M:%S} UTC"
