"""`run` and `preflight`: a plan's rounds over the silos that are connected."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fondaco.server.deployed import PreparedRun, prepare_run
from fondaco.server.flower_runs import Followed, run_to_its_end
from fondaco.server.home import ServerHome
from fondaco.server.status import Status
from fondaco.shared.catalogue import read_catalogue
from fondaco.shared.console import AsJson, Bars, out_console
from fondaco.shared.plan_text import read_plan

Home = Annotated[Path, typer.Option(help="The coordinator's folder, as `init` made it.")]
Plan = Annotated[Path, typer.Argument(help="The plan that the owners have signed.")]
CatalogueOption = Annotated[
    Path | None,
    typer.Option(help="The public items.", show_default="catalogue.json beside the plan"),
]


def run(
    plan: Plan, *, home: Home, catalogue: CatalogueOption = None, as_json: AsJson = False
) -> None:
    """Run PLAN's rounds, or go on with them, until the model is published."""
    _to_its_end("run", plan, home, catalogue, as_json=as_json)


def preflight(
    plan: Plan, *, home: Home, catalogue: CatalogueOption = None, as_json: AsJson = False
) -> None:
    """Rehearse PLAN without data: who is there, on which code, and as many bytes both ways."""
    _to_its_end("preflight", plan, home, catalogue, as_json=as_json)


def _to_its_end(
    task: str, plan: Path, folder: Path, catalogue: Path | None, *, as_json: bool
) -> None:
    home, agreed = ServerHome.open(folder), read_plan(plan)
    items = read_catalogue(catalogue or plan.with_name("catalogue.json"))
    prepared = prepare_run(home, agreed, items)
    note = partial(home.audit.write, "run", plan=agreed.digest, task=task)
    note(outcome="asked for")
    outcome = "not seen"  # whoever stops to look does not stop the ServerApp
    try:
        followed = _followed(home, prepared, task)
        outcome = followed.status.state
    finally:
        note(outcome=outcome)
    status = followed.status
    if as_json:
        facts = {"submissions": followed.submissions, "seconds": round(followed.seconds, 1)}
        print(json.dumps({**asdict(status), **facts}))
    else:
        _say(status, prepared.workspace.model, followed.seconds)
    if status.state != "finished":
        raise typer.Exit(1)


def _followed(home: ServerHome, run: PreparedRun, task: str) -> Followed:
    with Bars() as bars:

        def tell(status: Status) -> None:
            bars("rounds", len(status.rounds), status.planned)
            if status.stage:
                bars(status.stage, status.heard, max(1, status.asked))

        return run_to_its_end(home, run, task, tell)


def _say(status: Status, model: Path, seconds: float) -> None:
    if status.state != "finished":
        out_console.print(f"{status.task} failed: {escape(status.error)}", soft_wrap=True)
        return
    here = [silo.silo_id for silo in status.silos if silo.present]
    line = (
        f"{status.task} finished in {seconds:.0f} s with {len(here)} of {len(status.silos)} silos"
    )
    out_console.print(escape(line), soft_wrap=True)
    for silo in status.silos:
        if not silo.present:
            why = silo.dropped or "did not answer"
            out_console.print(f"  {escape(silo.silo_id)}: {escape(why)}", soft_wrap=True)
    if status.task == "run":
        out_console.print(f"model: {escape(str(model))}", soft_wrap=True)
