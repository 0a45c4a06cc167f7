"""The command for an owner's keys."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fondaco.shared.console import AsJson, err_console
from fondaco.shared.errors import ConfigError

from ..courier_folder import node_public
from ..deployment import DEPLOYMENT, read_deployment
from ..joining import audit, renew_node_key, write_registration
from ..owner import Owner
from .options import AnyonesHome, as_its_user


def keys(
    *,
    home: AnyonesHome,
    silo: Annotated[str, typer.Option(help="The silo's public name; makes a new key.")] = "",
    rotate: Annotated[
        bool, typer.Option(help="Replace the key; plans that name the old one end.")
    ] = False,
    rotate_node: Annotated[
        bool,
        typer.Option(
            "--rotate-node", help="Replace the courier's key; hand the registration over again."
        ),
    ] = False,
    registration: Annotated[
        Path | None,
        typer.Option(
            help="Also write the file that the coordinator registers: to this file, or into this "
            "folder."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make this owner's key, or print the public text of it for the coordinator and the peers.

    After a rotation the registration file is written again: the coordinator takes it up with
    `fondaco-server register FILE --replace`.
    """
    if silo and (rotate or rotate_node):
        raise ConfigError("a key that was just made need not be replaced")
    if silo or rotate:
        as_its_user(home)
    owner = Owner.make(home, silo) if silo else Owner.open(home)
    joined = (home / DEPLOYMENT).is_file()
    if rotate:
        owner = owner.rotate()
        audit(owner, "rotate", what="identity")
    if rotate_node:
        renew_node_key(owner)
    public = owner.identity.public.text()
    facts = {"silo_id": owner.silo_id, "key": public}
    print("" if as_json else public, end="" if as_json else "\n")
    if registration or (joined and (rotate or rotate_node)):
        courier = Path(read_deployment(home).courier)
        path = write_registration(owner, courier, registration or Path())
        facts |= {"node_key": node_public(courier), "registration": str(path)}
        rotated = rotate or rotate_node
        how = " --replace); until then it knows the old key only" if rotated else ")"
        err_console.print(
            f"hand {path} to the coordinator (fondaco-server register{how}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if as_json:
        print(json.dumps(facts))
