"""`init`, `invite`, `register`, `start` and `rotate`: a coordinator's folder and services."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from fondaco.shared import logs
from fondaco.shared.address import is_ip, split_address
from fondaco.shared.catalogue import read_catalogue
from fondaco.shared.console import AsJson, err_console, out_console
from fondaco.shared.errors import ConfigError
from fondaco.shared.kit import fingerprint
from fondaco.shared.plan_text import read_plan

from ..home import ServerHome, ServerSettings
from ..inviting import first_kit, keep_kit, planned_kit
from ..nodes import Enrolment, enrol, keep, registrations
from ..services import is_running, serve

BEHIND_PROXY = 8000
"""Where a SuperLink listens behind a proxy, unless that is the proxy's own port."""

Home = Annotated[Path, typer.Option(help="The coordinator's folder.")]


def init(
    *,
    home: Annotated[Path, typer.Option(help="A new folder for keys, certificates and runs.")],
    name: Annotated[str, typer.Option(help="What the coordinator is called.")],
    address: Annotated[str, typer.Option(help="Where silos will connect to, HOST:PORT.")],
    listen: Annotated[
        str, typer.Option(help="Where the SuperLink listens, HOST or HOST:PORT.")
    ] = "127.0.0.1",
    deadline: Annotated[int, typer.Option(help="Seconds that a silo has to answer.", min=1)] = 600,
    as_json: AsJson = False,
) -> None:
    """Make a coordinator's folder: key, certificate authority, settings, proxy example."""
    host, port = _listening(address, listen)
    made = ServerHome.make(
        home,
        ServerSettings(
            name=name, host=host, port=port, public_address=address, deadline_s=deadline
        ),
    )
    digits = fingerprint(made.identity.public.text())
    made.audit.write("init", coordinator=digits, address=address)
    facts = {"home": str(made.folder), "coordinator": made.identity.public.text()}
    if as_json:
        print(json.dumps({**facts, "fingerprint": digits, "listens": made.settings.local}))
        return
    _say(
        f"{made.folder} is ready; keep a copy of coordinator.pem and tls/ca.key where nobody finds "
        "it",
        f"fingerprint to read to every owner: {digits}",
    )
    if not _is_loopback(host):
        _say(
            f"[yellow]the SuperLink will listen at {host}:{port}: whoever reaches that without a "
            f"proxy ({made.folder}/proxy/nginx.conf) starts runs and registers nodes[/yellow]"
        )
    elif (host, port) != split_address(address):
        _say(
            f"the SuperLink will listen at {host}:{port}; put a proxy at {address} that shows "
            f"silos the fleet routes alone: {made.folder}/proxy/nginx.conf"
        )
    _next(f"fondaco-server start --home {home}", f"fondaco-server invite SILO --home {home}")


def invite(
    silo: Annotated[str, typer.Argument(help="The silo's public name.")],
    *,
    home: Home,
    plan: Annotated[
        Path | None, typer.Option(help="The plan, once every silo is registered.")
    ] = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(help="The public items.", show_default="catalogue.json beside the plan"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File or folder for the kit.", show_default="kits/ in the coordinator's folder"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a kit for SILO: addresses, certificates and, later on, the plan; no secret."""
    opened = ServerHome.open(home)
    audit: dict[str, str] = {}
    if plan is None:
        kit = first_kit(opened, silo)
    else:
        agreed = read_plan(plan)
        items = read_catalogue(catalogue or plan.with_name("catalogue.json"))
        kit, audit = planned_kit(opened, silo, agreed, items), {"plan": agreed.digest}
    path, digest = keep_kit(opened, kit, out)
    opened.audit.write("invite", silo_id=silo, kit=digest, **audit)
    digits = fingerprint(opened.identity.public.text())
    if as_json:
        print(json.dumps({"silo_id": silo, "kit": str(path), "fingerprint": digits}))
        return
    _say(f"{path} is for {silo}'s owner; it holds no secret and may go by mail")
    _say(f"fingerprint to read to that owner over another channel: {digits}")
    then = "back comes a registration: fondaco-server register FILE" if plan is None else ""
    _next("fondaco-client init --kit KIT --home HOME (the owner)", then)


def register(
    file: Annotated[Path, typer.Argument(help="What the owner's init wrote.")],
    *,
    home: Home,
    replace: Annotated[
        bool, typer.Option("--replace", help="Let the silo's keys be other ones from now on.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register the silo whose file this is; compare its fingerprint by phone before any plan."""
    opened = ServerHome.open(home)
    registration, changed = keep(opened, file, replace=replace)
    identity, node_key = (fingerprint(k) for k in (registration.identity, registration.node_key))
    if changed:
        opened.audit.write(
            "register", silo_id=registration.silo_id, key=identity, node_key=node_key
        )
    running, enrolment = is_running(opened), None
    if running:
        with suppress(ConfigError):  # the services see to it themselves within seconds
            enrolment = enrol(opened)
    refused = [*enrolment.refused] if enrolment else []
    if as_json:
        facts = {"silo_id": registration.silo_id, "changed": changed, "fingerprint": identity}
        more = {"pending": enrolment is None, "refused": refused}
        print(json.dumps({**facts, "node_fingerprint": node_key, **more}))
    else:
        _say(
            f"{registration.silo_id} is registered"
            + ("" if changed else " already, with the same keys"),
            f"fingerprint to compare with what its owner says: {identity}",
        )
        if enrolment is None:
            when = "within a minute" if running else f"after fondaco-server start --home {home}"
            _say(f"it may connect {when}")
        _say_refused(refused)
        _next(f"fondaco-server plan new CONFIG --catalogue FILE --home {home} (once all are here)")
    if refused:
        raise typer.Exit(1)


def start(*, home: Home, as_json: AsJson = False) -> None:
    """Keep the coordinator's services going, in the foreground, until Ctrl-C or SIGTERM."""
    opened = ServerHome.open(home)
    logs.install("fondaco-server")

    def ready() -> None:
        try:
            enrolment = enrol(opened)
        except ConfigError as error:  # those who are let in already stay so
            enrolment = Enrolment(refused=(str(error),))
        facts = {
            "listens": opened.settings.local,
            "address": opened.settings.public_address,
            "silos": list(registrations(opened)),
            "refused": list(enrolment.refused),
            "certificate_until": opened.tls.expires().isoformat(),
        }
        if as_json:
            print(json.dumps({"ready": True, **facts}), flush=True)
        else:
            _say_ready(facts, enrolment)

    serve(opened, ready)


def rotate(
    what: Annotated[
        Literal["certificate", "ca", "secret"], typer.Argument(help="What is made anew.")
    ],
    *,
    home: Home,
    finish: Annotated[
        bool, typer.Option("--finish", help="Of `ca`: trust the new authority alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a new server certificate, certificate authority, or secret of Flower's programs."""
    opened = ServerHome.open(home)
    if finish and what != "ca":
        raise ConfigError("--finish belongs to rotate ca")
    hosts, lines = opened.settings.hosts, list[str]()
    if what == "certificate":
        ends = opened.tls.renew(hosts)
        lines.append(f"the certificate is good until {ends:%Y-%m-%d}; silos notice nothing")
    elif what == "secret":
        opened.new_secret()
        lines.append("SuperLink and SuperExec share a new secret; silos notice nothing")
    elif finish:
        opened.tls.finish_next(hosts)
        lines.append("the new authority signs alone; a silo without its newest kit is shut out")
    else:
        opened.tls.announce_next(opened.settings.name)
        lines += [
            "a new authority is trusted besides the old one, which still signs",
            "give every silo a new kit (fondaco-server invite SILO), which each owner takes up "
            "with fondaco-client init --kit KIT and a restart; then run this again with --finish",
        ]
    opened.refresh()
    opened.audit.write("rotate", what=f"{what}-finish" if finish else what)
    running = is_running(opened)
    if as_json:
        print(json.dumps({"rotated": what, "finished": finish, "running": running}))
        return
    _say(*lines)
    _say(
        "the running services take it up within seconds; a proxy needs a reload"
        if running
        else f"it counts from the next fondaco-server start --home {home}"
    )


def _listening(address: str, listen: str) -> tuple[str, int]:
    """Return where the SuperLink listens.

    Silos reach a loopback address directly where the public one is that too, else by a proxy.
    """
    public_host, public_port = split_address(address)
    if ":" in listen and not is_ip(listen):
        return split_address(listen)
    behind_proxy = _is_loopback(listen) and not _is_loopback(public_host)
    if not behind_proxy:
        return listen, public_port
    return listen, BEHIND_PROXY + (public_port == BEHIND_PROXY)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _say_ready(facts: dict[str, Any], enrolment: Enrolment) -> None:
    _say(f"the SuperLink answers at {facts['listens']}; silos connect to {facts['address']}")
    silos = ", ".join(facts["silos"]) or "none yet: fondaco-server invite SILO"
    _say(f"registered: {silos}; certificate until {facts['certificate_until'][:10]}")
    if enrolment.shut_out:
        _say(f"not let in any more, or with new keys only: {', '.join(enrolment.shut_out)}")
    _say_refused(facts["refused"])
    _say("Ctrl-C stops it")


def _say_refused(refused: list[str]) -> None:
    for text in refused:
        err_console.print(f"[yellow]{escape(text)}[/yellow]", soft_wrap=True, highlight=False)


def _say(*lines: str) -> None:
    for line in lines:
        out_console.print(line, soft_wrap=True, highlight=False, markup=line.startswith("[yellow]"))


def _next(*commands: str) -> None:
    _say(*(f"next: {command}" for command in commands if command))
