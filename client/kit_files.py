"""What kits brought, in an owner's folder: the newest of each file, and catalogues still in use."""

from datetime import UTC, datetime
from pathlib import Path

from fondaco.shared.catalogue import Catalogue, load_catalogue, read_catalogue
from fondaco.shared.errors import DataError
from fondaco.shared.plan_text import read_plan
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.workspace import Workspace

from .owner import FACTS, Owner

KIT = "kit"
NEWEST, CA, PLAN, CATALOGUE = "newest.kit", "ca.pem", "plan.toml", "catalogue.json"


def kit_file(home: Path, name: str) -> Path:
    """Return where a file of the newest kit lies."""
    return home / KIT / name


def kept_catalogue(home: Path, digest: str) -> Path:
    """Return where an earlier catalogue is kept, for plans that name it."""
    return home / KIT / f"catalogue-{digest.removeprefix('sha256:')[:16]}.json"


def newest_plan(home: Path) -> RunPlan | None:
    """Return the plan of the newest kit, None if no kit has brought one.

    Raises:
        ConfigError: the file is damaged.
    """
    path = kit_file(home, PLAN)
    return read_plan(path) if path.is_file() else None


def plan_for_rows(home: Path, in_force: RunPlan | None) -> RunPlan | None:
    """Return by which plan rows are read: the one in force, else or once it is over the newest.

    Raises:
        ConfigError: the newest kit's is damaged.
    """
    if in_force is not None and in_force.allows(datetime.now(UTC).date()):
        return in_force
    return newest_plan(home) or in_force


def find_catalogue(owner: Owner, plan: RunPlan) -> Catalogue:
    """Return the catalogue that a plan names, also if newer kits have brought another since.

    Raises:
        DataError: it is not here.
    """
    if not (owner.folder / FACTS).is_file():
        return Workspace(owner.home.folder).read_catalogue(plan)
    return catalogue_of(owner.folder, plan.catalogue_digest)


def catalogue_of(home: Path, digest: str) -> Catalogue:
    """Return the catalogue of this digest that a kit brought to an owner's folder.

    Raises:
        DataError: it is not here.
    """
    kept, newest = kept_catalogue(home, digest), kit_file(home, CATALOGUE)
    path = kept if kept.is_file() else newest
    if not path.is_file():
        raise DataError(f"{path} does not exist; bring it with fondaco-client init --kit KIT")
    return load_catalogue(path, digest)


def keep_catalogue(home: Path, newer: str) -> None:
    """Put the newest kit's catalogue aside if one of another digest is about to replace it."""
    path = kit_file(home, CATALOGUE)
    if not path.is_file():
        return
    try:
        digest = read_catalogue(path).digest
    except DataError:
        return  # torn: no plan can use it
    kept = kept_catalogue(home, digest)
    if digest != newer and not kept.exists():
        kept.hardlink_to(path)
