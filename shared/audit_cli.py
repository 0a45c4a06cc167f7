"""fondaco-audit: judge ledgers and plans from files alone, without raw data.

Exit codes: 0 holds, 1 findings, 2 could not do it.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fondaco.shared.errors import LedgerError

from .audit.losses import MOST_SILOS, WHO, Loss, least_delta, losses
from .audit.plans import Plan, read_plan
from .audit.reading import count_records, is_ledger, read_ledger, read_plan_text, read_results
from .audit.report import report_facts, write_report
from .audit.state import LedgerState
from .audit.verify import Verification, read_through, verify
from .console import AsJson, err_console, new_app, out_console
from .console import run as run_app

app = new_app("Check what silos released against what they promised, from files alone.")

Ledgers = Annotated[list[Path], typer.Argument(help="Ledgers: exports (.jsonl) or files (.db).")]
PlanFiles = Annotated[
    list[Path] | None, typer.Option("--plan", help="A plan all agreed to (.toml, .json); repeat.")
]
WitnessFiles = Annotated[
    list[Path] | None,
    typer.Option("--witness", help="Notes or copies that others keep: file or folder; repeat."),
]


@app.command("verify")
def verify_command(
    ledgers: Ledgers,
    plan: PlanFiles = None,
    witness: WitnessFiles = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Check every record of LEDGERS; exit 0 if all holds, 1 with findings, 2 if unreadable."""
    found = _verified(ledgers, plan, witness)
    if as_json:
        _print_json(report_facts(found))
    else:
        _show_findings(found)
    raise typer.Exit(0 if found.holds else 1)


@app.command()
def show(
    ledger: Annotated[Path, typer.Argument(help="A ledger (.jsonl or .db).")],
    kind: Annotated[
        list[str] | None, typer.Option("--type", help="Only records of this type; repeat.")
    ] = None,
    last: Annotated[int, typer.Option(help="Only the newest N records; 0 shows all.", min=0)] = 0,
    *,
    as_json: AsJson = False,
) -> None:
    """Print the records of LEDGER and what is left of its budget; checks nothing."""
    wanted = {name.upper() for name in kind or []}
    state = LedgerState(name=ledger.name)
    records = list(read_ledger(ledger))
    for _ in read_through(records, state, lambda *_: None):
        pass
    bodies = [r.body for r in records if not wanted or r.body.get("type") in wanted][-last:]
    if as_json:
        _print_json({"silo": state.silo_id, "records": bodies, "budgets": _budgets(state)})
        return
    table = Table("record", "time", "type", "what", box=None, title=escape(state.silo_id))
    for body in bodies:
        cells = [str(body.get(name, "")) for name in ("seq", "ts", "type")]
        table.add_row(*map(escape, cells), escape(_summary(body)))
    out_console.print(table)
    for row in _budgets(state):
        line = f"{row['plan'][:19]}: {row['left']:,} of {row['budget']:,} units left"
        out_console.print(f"{line} ({row['share_left']:.1%})", highlight=False)


@app.command()
def epsilon(
    files: Annotated[list[Path], typer.Argument(help="Plans or ledgers; all plans compose.")],
    delta: Annotated[
        float | None,
        typer.Option(help="Delta at which epsilon is told.", show_default="the plans' smallest"),
    ] = None,
    silos: Annotated[int, typer.Option(help="Up to how many silos know a customer.", min=1)] = (
        MOST_SILOS
    ),
    *,
    as_json: AsJson = False,
) -> None:
    """Compute what the plans cost a customer: by who is trusted, and in 1 to 5 silos."""
    plans = [plan for path in files for plan in _plans_in(path)]
    if not plans:
        raise LedgerError("these ledgers hold no plan that can be read")
    if delta is not None and not 0 < delta < 1:
        raise LedgerError(f"delta {delta} must lie between 0 and 1")
    chosen = delta or least_delta(plans)
    with out_console.status("accounting") if not as_json else _Nothing():
        rows = losses(plans, chosen, most_silos=silos)
    if as_json:
        _print_json({"delta": chosen, "losses": [_loss(row) for row in rows]})
        return
    table = Table("seen by", "silos", "PLD or exact", "RDP", "by", box=None)
    for row in rows:
        cells = _number(row.tight), _number(row.rdp), row.method
        table.add_row(row.who if row.k == 1 else "", str(row.k), *cells)
    out_console.print(table)
    for who, meaning in WHO.items():
        out_console.print(f"{who}: {meaning}", highlight=False)


@app.command()
def conformance(
    seed: Annotated[
        int | None,
        typer.Option(help="Seed; the same one repeats a run.", show_default="from the system"),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Fewer draws.")] = False,
    *,
    as_json: AsJson = False,
) -> None:
    """Test the installed core from outside: noise, sensitivity, sampler, budget filter.

    Exit 1 if a check failed.
    """
    from .audit.conformance import run_conformance  # noqa: PLC0415 (it loads the whole core)

    with err_console.status("testing the installed core"):
        found = run_conformance(seed=seed, quick=quick)
    passed = all(check.passed for check in found.checks)
    if as_json:
        out_console.print(found.to_json(), markup=False, highlight=False, soft_wrap=True)
    else:
        table = Table("check", "verdict", "p", "detail", box=None)
        for check in found.checks:
            verdict = "passed" if check.passed else "[red]FAILED[/red]"
            chance = "exact" if check.p_value is None else f"{check.p_value:.2g}"
            table.add_row(escape(check.name), verdict, chance, escape(check.detail))
        out_console.print(table)
    raise typer.Exit(0 if passed else 1)


@app.command()
def report(
    ledgers: Ledgers,
    out: Annotated[Path, typer.Option(help="Folder to write the report to.")],
    *,
    plan: PlanFiles = None,
    witness: WitnessFiles = None,
    attacks: Annotated[Path | None, typer.Option(help="JSON of `fondaco-simulate attack`.")] = None,
    conformance: Annotated[
        Path | None, typer.Option(help="JSON of `fondaco-audit conformance --json`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify LEDGERS and write report.html, .json and .md.

    Exit 1 with findings, or if a given test or attack contradicts the plan.
    """
    attacked = read_results(attacks, "attacks", "results") if attacks else None
    tested = read_results(conformance, "conformance", "checks") if conformance else None
    found = _verified(ledgers, plan, witness)
    with err_console.status("accounting"):
        facts = report_facts(found, attacks=attacked, conformance=tested, command=sys.argv[1:])
    written = write_report(facts, out)
    if as_json:
        _print_json({"holds": found.holds, "files": [str(path) for path in written]})
    else:
        for path in written:
            out_console.print(escape(str(path)), soft_wrap=True)
    raise typer.Exit(0 if found.holds and not facts["contradicted"] else 1)


def _verified(
    ledgers: list[Path], plans: list[Path] | None, witnesses: list[Path] | None
) -> Verification:
    read = [_read_plan(path) for path in plans or []]
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err_console,
        transient=True,
        disable=not err_console.is_terminal,
    )
    missing = next((path for path in ledgers if not path.is_file()), None)
    if missing is not None:
        raise LedgerError(f"{missing} is no file; expected a ledger (.jsonl or .db)")
    total = sum(count_records(path) for path in ledgers)
    seen: Counter[str] = Counter()
    with bar as progress:
        task = progress.add_task("checking records", total=total)

        def tell(name: str, number: int) -> None:
            seen[name] = number
            progress.update(task, completed=seen.total())

        return verify(ledgers, read, witnesses or [], tell)


def _read_plan(path: Path) -> Plan:
    try:
        return read_plan(json.loads(read_plan_text(path)))
    except (ValueError, ArithmeticError, TypeError, KeyError, AttributeError) as error:
        raise LedgerError(f"{path} cannot be read as a plan: {error}") from None


def _plans_in(path: Path) -> list[Plan]:
    if not path.is_file():
        raise LedgerError(f"{path} is no file; expected a plan or a ledger")
    if not is_ledger(path) and path.suffix in (".toml", ".json"):
        return [_read_plan(path)]
    state = LedgerState(name=path.name)
    for _ in read_through(read_ledger(path), state, lambda *_: None):
        pass
    return state.used_plans()


def _show_findings(found: Verification) -> None:
    for finding in found.findings:
        colour = "red" if finding.severity == "error" else "yellow"
        where = f"{finding.ledger}, record {finding.seq}" if finding.seq else finding.ledger
        line = f"[{colour}]{finding.code}[/{colour}] {escape(where)}: {escape(finding.text)}"
        out_console.print(line, highlight=False, soft_wrap=True)
    for remark in found.remarks:
        out_console.print(f"note: {escape(remark)}", highlight=False, soft_wrap=True)
    records = sum(state.seq for state in found.ledgers)
    errors = sum(finding.severity == "error" for finding in found.findings)
    verdict = "[green]holds[/green]" if found.holds else f"[red]{errors} findings[/red]"
    count = f"records: {records:,}, ledgers: {len(found.ledgers)}"
    out_console.print(f"{count}: {verdict}", highlight=False)


def _budgets(state: LedgerState) -> list[dict[str, Any]]:
    return [
        {
            "plan": plan.digest,
            "budget": plan.budget,
            "left": plan.budget - state.spent[plan.digest],
            "share_left": 1 - state.spent[plan.digest] / plan.budget,
        }
        for plan in state.used_plans()
    ]


def _summary(body: dict[str, Any]) -> str:
    """Return a record's own facts in one line."""
    shown = [
        "kind",
        "round_num",
        "attempt",
        "cost",
        "left",
        "debit_seq",
        "masked",
        "survivors",
        "rng",
        "code",
        "reason",
        "approved",
        "epsilon",
        "silo_id",
        "budget_units",
        "count",
        "verdict",
        "by",
    ]
    return ", ".join(f"{name} {body[name]}" for name in shown if body.get(name) not in (None, ""))


def _loss(row: Loss) -> dict[str, Any]:
    return {
        "who": row.who,
        "silos": row.k,
        "epsilon": row.tight,
        "rdp": row.rdp,
        "method": row.method,
    }


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4f}"


def _print_json(facts: object) -> None:
    text = json.dumps(facts, ensure_ascii=False, indent=1)
    out_console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Nothing:
    """A context without effect."""

    def __enter__(self) -> None:
        return

    def __exit__(self, *error: object) -> None:
        return


def main() -> None:
    """Run the command line."""
    run_app(app)
