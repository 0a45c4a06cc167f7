"""Commands for keys, limits, plans and the ledger: what may be spent, and what was."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fondaco.shared.chain.keys import PublicKey
from fondaco.shared.console import AsJson, err_console, out_console
from fondaco.shared.plan_text import read_plan

from ..forgetting import forget
from ..joining import audit
from ..ledger_view import (
    export_lines,
    known_types,
    ledger_facts,
    note_audit,
    read_lines,
    show_ledger,
)
from ..limits import new_policy
from ..meaning import meaning_in_words, plan_meaning
from ..owner import Owner
from .options import Home


def policy(
    *,
    home: Home,
    epsilon_per_year: Annotated[
        float | None, typer.Option(help="All plans together, in any 365 days.", min=0.01)
    ] = None,
    epsilon_if_masking_broke: Annotated[
        float | None, typer.Option(help="Any one plan, if secure aggregation broke.", min=0.01)
    ] = None,
    target_delta: Annotated[
        float | None,
        typer.Option(help="Delta of both limits.", show_default="1e-5, or what was set before"),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="Public key of a peer or the coordinator, checked with its owner."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set or show the owner's own limits, which no plan may pass, and pin peers' keys."""
    owner, keys = Owner.open(home), [PublicKey.from_text(text) for text in peer or []]
    given = epsilon_per_year, epsilon_if_masking_broke, target_delta
    changed = any(limit is not None for limit in given)
    with owner.ledger() as ledger:
        limits = new_policy(ledger.policy(), *given) if changed else ledger.policy()
        if keys:
            owner.pin(keys)
        if changed and limits is not None:
            ledger.adopt(limits)
    terms = asdict(limits) if limits else {}
    if changed or keys:
        said = {name: value for name, value in terms.items() if name != "order"}
        audit(owner, "policy", pinned=len(keys), **said)
    peers = [key.name for key in owner.peers()]
    if as_json:
        print(json.dumps({"limits": terms, "peers": peers}))
        return
    if limits is None:
        out_console.print("no limits are set yet: nothing can be approved")
    for name, value in terms.items():
        out_console.print(f"{name.replace('_', ' ')}: {value}")
    out_console.print(f"pinned keys: {escape(', '.join(peers) or 'none')}")


def approve(
    plan: Annotated[Path, typer.Argument(help="The plan's .toml (or .json) file.")],
    *,
    home: Home,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say in plain words what PLAN allows and costs, and sign it if the owner agrees."""
    owner, agreed = Owner.open(home), read_plan(plan)
    with owner.ledger() as ledger:
        facts = plan_meaning(agreed, ledger.policy())
    if as_json and not yes:
        print(json.dumps({**facts, "approved": False}))
        return
    if not as_json:
        for paragraph in meaning_in_words(agreed, facts):
            out_console.print(f"- {escape(paragraph)}", highlight=False)
    owner.check(agreed)
    if not yes and not typer.confirm("Sign this plan?"):
        raise typer.Exit(1)
    path = owner.approve(agreed)
    audit(owner, "approve", plan=agreed.digest)
    if as_json:
        print(json.dumps({**facts, "approved": True, "kept_as": str(path)}))
        return
    out_console.print(f"signed; kept as {escape(str(path))}", soft_wrap=True)


def leave(
    *,
    home: Home,
    reason: Annotated[str, typer.Option(help="Written into the ledger, which others read.")] = (
        "the owner leaves"
    ),
) -> None:
    """Withdraw from the approved plan: nothing is debited any more, nothing comes back."""
    owner = Owner.open(home)
    plan = owner.leave(reason)
    audit(owner, "leave", plan=plan.digest)
    out_console.print(f"{escape(owner.silo_id)} has left; its ledger says so")


def erase(
    customer: Annotated[str, typer.Argument(help="The customer's id.")],
    *,
    home: Home,
) -> None:
    """Remove a customer's rows and keep them out; whatever was released already stays."""
    owner = Owner.open(home)
    forgotten = forget(owner, customer)
    audit(owner, "erase")
    out_console.print(
        f"{forgotten} rows are gone. What was released before is covered by the plan's promise, "
        "not undone; models age out when they are trained again."
    )


def ledger(
    *,
    home: Home,
    only: Annotated[
        list[str] | None, typer.Option("--type", help="Only records of this type; repeat.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write all records as JSONL.")] = None,
    take_back: Annotated[
        Path | None,
        typer.Option("--import", help="Take lost records back from an export or a replica."),
    ] = None,
    audited: Annotated[
        Path | None, typer.Option(help="Note an audit's report.json in the ledger.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what was promised, spent and refused; export it for an auditor."""
    owner, wanted = Owner.open(home), known_types(only or [])
    if take_back is not None:
        taken = owner.restore(read_lines(take_back))
        audit(owner, "restore")
        (err_console if as_json else out_console).print(f"{taken} records were taken back")
    with owner.ledger() as opened:
        if audited is not None:
            note_audit(opened, audited)
        if export is not None:
            export_lines(opened, export)
        facts = ledger_facts(opened, wanted)
    if as_json:
        print(json.dumps(facts))
        return
    show_ledger(out_console, facts)
