"""Commands of somebody who joins: make the folders from a kit, and look whether all is well."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fondaco.shared.console import AsJson, err_console, out_console

from ..deployment import PORT
from ..doctor import Check, examine
from ..doctor_host import EVERYTHING
from ..joining import Joined, Peer, Wishes, join, pin_peers
from .options import AnyonesHome, busy


def init(
    *,
    kit: Annotated[Path, typer.Option(help="The file that the coordinator sent.")],
    home: Annotated[Path, typer.Option(help="The owner's folder; made if it is not there.")],
    courier: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the program that talks to the network.", show_default="HOME-courier"
        ),
    ] = None,
    courier_user: Annotated[
        str,
        typer.Option(
            help="OS user whom that folder belongs to; only root can choose one.",
            show_default="who owns it, else this user",
        ),
    ] = "",
    courier_port: Annotated[
        int | None,
        typer.Option(
            help="Loopback port between the courier's processes.",
            min=1,
            max=65535,
            show_default=str(PORT),
        ),
    ] = None,
    coordinator: Annotated[
        str,
        typer.Option(help="Fingerprint that the coordinator told you; another one is refused."),
    ] = "",
    replace_peer: Annotated[
        list[str] | None, typer.Option(help="Peer whose new key was confirmed by its owner.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="File or folder for the registration to hand back.")
    ] = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Pin the peers' keys without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Join with the coordinator's kit; with a newer kit, follow to its plan or certificates.

    The first kit makes this owner's keys and folders, and a registration file to hand back. The
    second brings the plan and the keys of everybody in it, which you compare with their owners
    and pin. No key is ever overwritten; running it again does no harm.
    """
    wishes = Wishes(
        courier=courier,
        courier_user=courier_user,
        port=courier_port,
        coordinator=coordinator,
        out=out,
    )
    first = not (home / "deployment.json").exists()
    joined = join(kit, home, wishes)
    waiting = [*joined.of_state("new"), *joined.of_state("changed")]
    if as_json:
        if waiting and yes:
            pin_peers(home, joined, replace_peer or ())
        pinned = yes or not waiting
        print(json.dumps({**joined.facts(), "pinned": pinned}))
        return
    _show(joined, first=first)
    if waiting:
        _show_peers(joined.peers)
        _ask(waiting, yes=yes)
        pin_peers(home, joined, replace_peer or ())
        out_console.print(f"keys pinned: {len(waiting)}")
    _say_next(joined)


def doctor(*, home: AnyonesHome, as_json: AsJson = False) -> None:
    """Look whether this owner's side could run; every failure says how to mend it.

    Nothing is changed and no customer is read. Ends with 0 if nothing failed, with 1 otherwise.
    """
    with busy("looking"):
        checks = examine(home, EVERYTHING)
    well = all(check.state != "fail" for check in checks)
    if as_json:
        print(json.dumps({"ok": well, "checks": [check.facts() for check in checks]}))
    else:
        _show_checks(checks)
    if not well:
        raise typer.Exit(1)


def _show_checks(checks: list[Check]) -> None:
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table("", "what", "seen, and what to do", box=None)
    for check in checks:
        state = f"[{colours[check.state]}]{check.state}[/]"
        table.add_row(state, check.name, escape(check.seen))
        if check.fix:
            table.add_row("", "", f"[bold]->[/bold] {escape(check.fix)}")
    out_console.print(table, highlight=False)
    count = Counter(check.state for check in checks)
    _line(f"{count['ok']} ok, {count['warn']} to know of, {count['fail']} failed")


def _show(joined: Joined, *, first: bool) -> None:
    _line(f"{joined.silo_id}: keys, ledger and data in {joined.home}")
    _line(f"courier, which talks to {joined.superlink}, in {joined.courier}")
    if joined.changed and not first:
        _line(f"new with this kit: {', '.join(joined.changed)}")
        if {"certificate authority", "address"} & set(joined.changed):
            _line("restart fondaco-client run, so that the courier takes that up")
    _line("compare over the phone, not by mail:")
    _line(f"  coordinator  {joined.coordinator}")
    _line(f"  you          {joined.own}")


def _show_peers(peers: tuple[Peer, ...]) -> None:
    table = Table("name", "fingerprint", "key", box=None)
    for peer in peers:
        table.add_row(escape(peer.name), peer.fingerprint, peer.state)
    out_console.print(table)


def _ask(waiting: list[Peer], *, yes: bool) -> None:
    if yes:
        return
    err_console.print(
        "Whoever slips in a false key here could read what masks hide. Ask each owner, by phone, "
        "for the fingerprint.",
        highlight=False,
    )
    if not typer.confirm("Do these fingerprints match?"):
        raise typer.Exit(1)


def _say_next(joined: Joined) -> None:
    home = f"--home {joined.home}"
    if joined.registration:
        _line(f"hand back to the coordinator: {joined.registration} (public keys only)")
        _line(f"next, with the kit that brings the plan: fondaco-client init --kit KIT {home}")
        return
    _line("next:")
    _line(f"  fondaco-client policy {home} --epsilon-per-year E --epsilon-if-masking-broke E")
    _line(f"  edit {joined.home}/source.toml, then: fondaco-client load {home}")
    _line(f"  fondaco-client doctor {home}")
    _line(f"  fondaco-client approve {joined.home}/kit/plan.toml {home}")
    _line(f"  fondaco-client run {home}")


def _line(text: str) -> None:
    out_console.print(text, markup=False, highlight=False, soft_wrap=True)
