"""Kits: what a silo needs to join, signed by the coordinator."""

import hashlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from fondaco.shared.catalogue import Catalogue, save_catalogue
from fondaco.shared.errors import ConfigError
from fondaco.shared.files import write_durably
from fondaco.shared.kit import Kit
from fondaco.shared.privacy.plan import RunPlan

from .home import ServerHome
from .nodes import registrations


def first_kit(home: ServerHome, silo_id: str) -> Kit:
    """Return what lets an owner make the silo's keys; there is no plan yet.

    Raises:
        ConfigError: the name is none.
    """
    return _kit(home, silo_id)


def planned_kit(home: ServerHome, silo_id: str, plan: RunPlan, catalogue: Catalogue) -> Kit:
    """Return what lets an owner read, approve and run a plan.

    Raises:
        ConfigError: the plan has another catalogue, coordinator or key of this silo, or it is not
            of it.
    """
    own = home.identity.public.text()
    if plan.coordinator != own:
        raise ConfigError(f"the plan names another coordinator's key than {home.folder} holds")
    if plan.catalogue_digest != catalogue.digest:
        raise ConfigError(f"the plan is about another catalogue, {plan.catalogue_digest[:19]}")
    if silo_id not in plan.roster:
        raise ConfigError(f"the plan is for {', '.join(plan.roster)}, not for {silo_id!r}")
    registration = registrations(home).get(silo_id)
    if registration is None or registration.identity != plan.roster[silo_id]:
        known = "another key for it than" if registration else "it, which is not among"
        raise ConfigError(
            f"the plan names {known} the registrations in {home.silos}; register {silo_id!r} and "
            "make the plan anew"
        )
    return replace(
        _kit(home, silo_id),
        plan=plan.to_json(),
        catalogue=_text(catalogue),
        peers=tuple(plan.roster.values()),
    )


def keep_kit(home: ServerHome, kit: Kit, out: Path | None) -> tuple[Path, str]:
    """Sign a kit and write it; return where, and its digest."""
    blob = kit.to_bytes(home.identity)
    kept = home.kit(kit.silo_id)
    write_durably(kept, blob)
    if out is not None and out.is_dir():
        out /= kept.name
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(blob)
    return out or kept, f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _kit(home: ServerHome, silo_id: str) -> Kit:
    return Kit(
        silo_id=silo_id,
        superlink=home.settings.public_address,
        ca=home.tls.ca.read_text(encoding="ascii"),
        coordinator=home.identity.public.text(),
        issued=int(time.time()),
    )


def _text(catalogue: Catalogue) -> str:
    """Return what `save_catalogue` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalogue.json"
        save_catalogue(catalogue, path)
        return path.read_text(encoding="utf-8")
