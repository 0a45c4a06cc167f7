"""fondaco-server: the coordinator's command line.

Exit codes: 0 done, 1 the answer is no, 2 could not do it.
"""

import json
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from click import Context
from rich.markup import escape

from fondaco.shared.catalogue import Catalogue, read_catalogue, save_catalogue
from fondaco.shared.chain.keys import COORDINATOR, Identity
from fondaco.shared.config import build, read_toml
from fondaco.shared.console import AsJson, Commands, err_console, new_app, out_console
from fondaco.shared.console import run as run_app
from fondaco.shared.errors import ConfigError
from fondaco.shared.plan_text import read_plan, to_toml
from fondaco.shared.privacy.plan import RunPlan

from .commands.runs import preflight, run
from .commands.services import init, invite, register, rotate, start
from .commands.status import history, metrics, status
from .item_table import load_items
from .plan_config import PlanFile
from .plan_view import in_words, plain, plan_facts, plan_tables
from .planning import make_plan
from .roster import keys_of, read_coordinator, read_roster

DAYS_VALID = 90
IN_ORDER_OF_USE = (
    "init",
    "start",
    "invite",
    "register",
    "plan",
    "preflight",
    "run",
    "status",
    "metrics",
    "history",
    "rotate",
    "keys",
)


class _InOrder(Commands):
    """Lists groups of commands where they are used; typer puts them last."""

    def list_commands(self, ctx: Context) -> list[str]:
        return sorted(super().list_commands(ctx), key=IN_ORDER_OF_USE.index)


app = new_app("Coordinate silos: make plans that their owners sign, and run them.", cls=_InOrder)
plan_app = new_app("Make a plan, or say what one means.")
app.add_typer(plan_app, name="plan")


def _print_example(wanted: bool) -> None:
    if wanted:
        print((files(__package__) / "plan_example.toml").read_text(encoding="utf-8"), end="")
        raise typer.Exit


@app.command()
def keys(
    out: Annotated[Path, typer.Option(help="File for the private key.")] = Path("coordinator.pem"),
    *,
    as_json: AsJson = False,
) -> None:
    """Make the coordinator's key, unless it is there, and print its public text."""
    if out.exists():
        identity = Identity.load(out, COORDINATOR)
    else:
        identity = Identity.generate(COORDINATOR)
        identity.save(out)
        err_console.print(
            f"{escape(str(out))} is private; the line below is for every plan and owner",
            soft_wrap=True,
        )
    public = identity.public.text()
    print(json.dumps({"key_file": str(out), "key": public}) if as_json else public)


@plan_app.command()
def new(
    config: Annotated[Path, typer.Argument(help="What to learn, in TOML; see --example.")],
    *,
    catalogue: Annotated[
        Path, typer.Option(help="The public item list: catalogue.json, or a CSV with item_id.")
    ],
    home: Annotated[
        Path | None,
        typer.Option(help="The coordinator's folder, instead of --keys and --coordinator."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="The silos' public keys: a file with one per line, or a folder."),
    ] = None,
    coordinator: Annotated[
        str, typer.Option(help="The coordinator's public key, or its file.")
    ] = "",
    expires: Annotated[
        str,
        typer.Option(
            help="Last day of the plan (UTC).", show_default=f"{DAYS_VALID} days from today"
        ),
    ] = "",
    out: Annotated[Path, typer.Option(help="File for the plan.")] = Path("plan.toml"),
    as_json: AsJson = False,
    example: Annotated[
        bool,
        typer.Option(
            "--example", is_eager=True, callback=_print_example, help="Print a CONFIG and stop."
        ),
    ] = False,
) -> None:
    """Make the plan that CONFIG asks for; nothing is spent until owners approve it."""
    del example
    if out.exists():
        raise ConfigError(f"{out} exists and may be signed already; choose another --out")
    asked = build(PlanFile, read_toml(config))
    items = load_items(catalogue)
    silos, central = keys_of(home, keys, coordinator)
    roster = read_roster(silos)
    settings = asked.plan_config(roster, read_coordinator(central), _last_day(expires))
    with err_console.status("looking for the least noise that keeps the promise"):
        plan = make_plan(settings, items)
    out.parent.mkdir(parents=True, exist_ok=True)
    if catalogue.suffix.lower() == ".csv":
        _keep_catalogue(items, out.with_name("catalogue.json"))
    out.write_text(to_toml(plan), encoding="utf-8")
    _print_plan(plan, as_json=as_json)
    if not as_json:
        then = f"fondaco-client approve {out} --home FOLDER"
        if home is not None:
            then = f"fondaco-server invite SILO --plan {out} --home {home} gives each a kit with it"
        line = f"{out} is for every owner to read and sign: {then}"
        out_console.print(escape(line), soft_wrap=True)


@plan_app.command()
def show(
    plan: Annotated[Path, typer.Argument(help="A plan in .toml, or in canonical JSON.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say in plain words and tables what PLAN releases and promises."""
    _print_plan(read_plan(plan), as_json=as_json)


def _today() -> date:
    return datetime.now(UTC).date()


def _last_day(text: str) -> str:
    if not text:
        return (_today() + timedelta(days=DAYS_VALID)).isoformat()
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--expires {text!r} must be a day such as 2027-01-31") from None
    if day < _today():
        raise ConfigError(f"--expires {text!r} is over; every agent would refuse the plan")
    return day.isoformat()


def _keep_catalogue(items: Catalogue, path: Path) -> None:
    """Write what silos need in exactly this form, unless it is there."""
    if not path.exists():
        save_catalogue(items, path)
    elif read_catalogue(path).digest != items.digest:
        raise ConfigError(f"{path} holds another catalogue; choose another folder for --out")
    err_console.print(f"{escape(str(path))} goes to every silo too", soft_wrap=True)


def _print_plan(plan: RunPlan, *, as_json: bool) -> None:
    facts = plan_facts(plan, _today())
    if as_json:
        print(json.dumps(facts))
        return
    title = f"Plan {facts['digest']} of {facts['dataset'] or 'an unnamed federation'}"
    out_console.print(plain(title), style="bold", highlight=False, soft_wrap=True)
    for line in in_words(facts):
        out_console.print(plain(line), highlight=False)
    for table in plan_tables(facts):
        out_console.print()
        out_console.print(table)
    out_console.print(
        f"\ncatalogue of {facts['n_items']:,} items: {facts['catalogue_digest']}\n"
        f"client code: {facts['code_digest']}\nsilos: {plain(', '.join(facts['silos']))}",
        highlight=False,
        soft_wrap=True,
    )


for command in (init, start, invite, register, preflight, run, status, metrics, history, rotate):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    run_app(app)
