"""Public keys as files -> who takes part: the silos' keys and the coordinator's.

A silo's key stands in a line of its own, or in the registration that its owner handed in.
"""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from fondaco.shared.chain.keys import COORDINATOR, PublicKey, key_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.kit import Registration

from .home import PUBLIC, SILOS

_PREFIX = key_name("")


def read_roster(path: Path) -> dict[str, str]:
    """Return silo id -> public key text, sorted.

    Args:
        path: a file of public keys, one per line, or a registration, or a folder of such files;
            blank lines and lines that start with "#" are skipped.

    Raises:
        ConfigError: naming the line that is no silo's public key, or is one for the second time.
    """
    owners: dict[str, str] = {}
    roster: dict[str, str] = {}
    for place, text in _lines_of(path):
        key = _public_key(place, text)
        silo_id = unquote(key.name.removeprefix(_PREFIX))
        if not _is_name(silo_id) or key_name(silo_id) != key.name:
            raise ConfigError(f"{place}: {key.name!r} is no silo's name; expected {_PREFIX}SILO")
        if silo_id in roster:
            raise ConfigError(f"{place}: silo {silo_id!r} has a key already")
        same = owners.setdefault(key.raw.hex(), silo_id)
        if same != silo_id:
            raise ConfigError(f"{place}: {silo_id!r} and {same!r} have the same key")
        roster[silo_id] = key.text()
    if not roster:
        raise ConfigError(f"{path} holds no public keys")
    return dict(sorted(roster.items()))


def keys_of(home: Path | None, silos: Path | None, coordinator: str) -> tuple[Path, str]:
    """Return where the silos' keys are, and the coordinator's key: in `home` unless given.

    Raises:
        ConfigError: neither says.
    """
    if home is not None:
        silos = silos or home / SILOS
        coordinator = coordinator or str(home / PUBLIC)
    if silos is None or not coordinator:
        missing = "--keys" if silos is None else "--coordinator"
        raise ConfigError(f"{missing} is missing; give it, or --home SHOME for both")
    return silos, coordinator


def read_coordinator(text_or_file: str) -> str:
    """Return the coordinator's public key text, given as such or as a file that holds it.

    Raises:
        ConfigError: it is neither.
    """
    given = text_or_file.strip()
    found = [("--coordinator", given)]
    if not given.startswith(f"{COORDINATOR}+"):
        found = list(_lines_of(Path(given)))
    keys = [_public_key(place, text) for place, text in found]
    if len(keys) != 1 or keys[0].name != COORDINATOR:
        raise ConfigError(f"{given} must hold one public key, that of {COORDINATOR}")
    return keys[0].text()


def _lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield every line that says something, with its place."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist")
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".")
    for file in files:
        try:
            blob = file.read_bytes()
            lines = blob.decode().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} cannot be read as public keys: {error}") from None
        if blob.startswith(b"{"):
            yield file.name, _registered(file.name, blob)
            continue
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.lstrip().startswith("#"):
                yield f"{file.name} line {number}", line.strip()


def _registered(place: str, blob: bytes) -> str:
    try:
        return Registration.from_bytes(blob).identity
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _is_name(silo_id: str) -> bool:
    return bool(silo_id.strip()) and silo_id.isprintable()


def _public_key(place: str, text: str) -> PublicKey:
    if text.startswith("-----BEGIN"):
        raise ConfigError(f"{place}: this is a private key; hand over the public text alone")
    try:
        return PublicKey.from_text(text)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
