"""fondaco-simulate: the whole federation on one machine.

Exit codes: 0 done, 1 the answer is no, 2 could not do it.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from fondaco.server.plan_view import release_facts
from fondaco.shared.console import AsJson, Bars, new_app, out_console
from fondaco.shared.console import run as run_app
from fondaco.shared.logs import stop_on_signals

from . import run as runs
from .attacks import attack as run_attacks
from .attacks import make_order, results_table
from .datasets import list_datasets
from .library import load_scenario, scenario_names
from .loopback import loopback as run_as_processes
from .loopback_view import loopback_tables
from .report import summary_table, write_comparison, write_report
from .result import plan_facts, privacy_facts, read_result, write_result
from .scenario import Scenario
from .tune import facts_of, parse_knob, write_tuned
from .tune import tune as run_search
from .view import (
    budget_table,
    comparison_table,
    datasets_table,
    datasets_terms,
    flwr_command,
    models_table,
    plan_table,
)

app = new_app("Run a federation of silos on this machine and measure what each silo gains.")

ScenarioName = Annotated[
    str, typer.Argument(help="A name from `fondaco-simulate scenarios`, or a .toml file.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=c", help="Override one field; may be repeated."),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the data sets that no package ships.")
]
Seed = Annotated[
    int | None,
    typer.Option(help="Seed of cuts, draws and simulated noise.", show_default="the scenario's"),
]


def scenario_of(
    name: str,
    settings: list[str] | None,
    data_dir: Path | None,
    seed: int | None,
    extra: list[str] | None = None,
) -> Scenario:
    """Return the scenario with every command-line override applied."""
    overrides = list(extra or [])
    if data_dir is not None:
        overrides.append(f"dataset.data_dir={json.dumps(str(data_dir))}")
    if seed is not None:
        overrides.append(f"seed={seed}")
    return load_scenario(name, [*overrides, *(settings or [])])


@app.command()
def run(
    scenario: ScenarioName,
    *,
    settings: Settings = None,
    data_dir: DataDir = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results.", show_default="runs/SCENARIO")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="in-process, or ray (Flower's own simulation).", show_default="the scenario's"
        ),
    ] = None,
    interactions: Annotated[
        Path | None, typer.Option(help="Your own CSV or Parquet table (scenario `files`).")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="Public catalogue of --interactions.")] = None,
    silo_column: Annotated[
        str, typer.Option(help="Column of --interactions that names the silo.")
    ] = "",
    keep_silos: Annotated[
        bool, typer.Option(help="Keep each silo's state for `fondaco-client recommend`.")
    ] = False,
    continues: Annotated[
        Path | None,
        typer.Option(
            "--continue", help="Folder of an earlier run to go on from; epsilon covers both."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Print the plan and its epsilon; spend nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run SCENARIO: federate, measure, write result.json and report.html."""
    extra = [f"engine.kind={engine}"] if engine else []
    for key, value in (("interactions", interactions), ("items", items)):
        extra += [f"dataset.{key}={json.dumps(str(value))}"] if value else []
    extra += [f"dataset.silo_column={json.dumps(silo_column)}"] if silo_column else []
    chosen = scenario_of(scenario, settings, data_dir, seed, extra)
    with Bars() as progress:
        prepared = runs.prepare(chosen, progress, continues=continues)
    if dry_run:
        _show_plan(prepared, as_json=as_json)
        return
    folder = out or Path("runs") / chosen.name
    with Bars() as progress:
        simulation = runs.simulate(prepared, folder, progress, keep_silos=keep_silos)
    write_result(simulation.result, folder)
    write_report(dict(simulation.result), folder / "report.html")
    if as_json:
        print(json.dumps(simulation.result))
        return
    out_console.print(summary_table(dict(simulation.result)))
    out_console.print(models_table(simulation.result))
    out_console.print(budget_table(simulation.result))
    page = escape(str(folder / "report.html"))
    out_console.print(f"[bold]{page}[/bold] shows the rest. Next, try:")
    out_console.print(f"  fondaco-simulate compare {escape(scenario)} --epsilon 1,2,4,8")


@app.command()
def compare(
    scenario: ScenarioName,
    *,
    epsilon: Annotated[str, typer.Option(help="Budgets to compare, such as 1,2,4,8.")] = "1,2,4,8",
    settings: Settings = None,
    data_dir: DataDir = None,
    seed: Seed = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results.", show_default="runs/SCENARIO-compare")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run SCENARIO at several budgets and draw quality against epsilon."""
    chosen = scenario_of(scenario, settings, data_dir, seed)
    folder = out or Path("runs") / f"{chosen.name}-compare"
    with Bars() as progress:
        results = runs.compare(chosen, runs.parse_epsilons(epsilon), folder, progress)
    write_comparison([dict(result) for result in results], folder / "report.html")
    if as_json:
        print(json.dumps(results))
        return
    out_console.print(comparison_table(results))
    page = escape(str(folder / "report.html"))
    out_console.print(f"[bold]{page}[/bold] draws the curve.")


@app.command()
def tune(
    scenario: ScenarioName,
    *,
    knob: Annotated[
        list[str],
        typer.Option(help="a.b=1,2,3 (one of these) or a.b=0.01..0.1 (between); may be repeated."),
    ],
    out: Annotated[Path, typer.Option(help="Scenario file to write.")],
    trials: Annotated[int, typer.Option(min=1, help="Settings tried.")] = 20,
    public: Annotated[
        bool,
        typer.Option("--public", help="Look at the scenario's own data: they are public."),
    ] = False,
    settings: Settings = None,
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(help="Seed of the search and of the invented data.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Search knobs of SCENARIO on invented data, or on its own if they are --public."""
    extra = [f"dataset.data_dir={json.dumps(str(data_dir))}"] if data_dir else []
    overrides = [*extra, *(settings or [])]
    knobs = [parse_knob(text) for text in knob]
    with Bars() as progress:
        found = run_search(
            scenario,
            overrides,
            knobs,
            trials=trials,
            public=public,
            seed=seed,
            progress=progress,
        )
    write_tuned(scenario, settings or [], found, out)
    if as_json:
        print(json.dumps(facts_of(found)))
        return
    best = escape(" ".join(found.settings))
    out_console.print(f"best of {trials}: {best} ({found.value:.4f} on {escape(found.tuned_on)})")
    out_console.print(f"[bold]{escape(str(out))}[/bold] is a scenario with these knobs.")


@app.command()
def attack(
    scenario: Annotated[str, typer.Argument(help="Whose customers are attacked.")] = "synthetic",
    *,
    attacks: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            help="one-run, cosine, membership or reconstruction (of one silo's share, in the clear "
            "and under masks, and of the sum); all by default.",
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option("--target", help="gram, mf, autoencoder or fused; all by default."),
    ] = None,
    epsilon: Annotated[str, typer.Option(help="Claims, such as 1,2,4; else the scenario's.")] = "",
    n_runs: Annotated[int, typer.Option("--runs", help="Runs of each audited mechanism.")] = 3,
    quick: Annotated[bool, typer.Option(help="One run each, few shadows: under 40 s.")] = False,
    settings: Settings = None,
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(help="Seed of customers, coins and noise.")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON to write, for `fondaco-audit`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Attack the real mechanisms: each finding beside its claim, power and false alarms."""
    folder = [f"dataset.data_dir={json.dumps(str(data_dir))}"] if data_dir else []
    order = make_order(
        scenario,
        [*folder, *(settings or [])],
        attacks=attacks or [],
        targets=targets or [],
        epsilons=runs.parse_epsilons(epsilon) if epsilon else [],
        runs=n_runs,
        quick=quick,
        seed=seed,
    )
    with Bars() as progress:
        document = run_attacks(order, progress)
    if out is not None:
        out.write_text(json.dumps(document, indent=1), encoding="utf-8")
    if as_json:
        print(json.dumps(document))
        return
    out_console.print(results_table(document))


@app.command()
def datasets(
    data_dir: DataDir = None,
    load: Annotated[bool, typer.Option(help="Read each set and show its sizes.")] = True,
    as_json: AsJson = False,
) -> None:
    """List the data sets: source, licence, silos, sizes, and how to get what is missing."""
    rows = list_datasets(str(data_dir or ""), load_sizes=load)
    if as_json:
        print(json.dumps(rows))
        return
    out_console.print(datasets_table(rows))
    for line in datasets_terms(rows):
        out_console.print(line, highlight=False)


@app.command()
def scenarios(as_json: AsJson = False) -> None:
    """List the scenarios."""
    rows = [(name, load_scenario(name).title) for name in scenario_names()]
    if as_json:
        print(json.dumps([{"name": name, "title": title} for name, title in rows]))
        return
    table = Table("scenario", "what it shows", box=None)
    for row in rows:
        table.add_row(*row)
    out_console.print(table)


@app.command()
def prepare(
    scenario: ScenarioName,
    out: Annotated[Path, typer.Option(help="Folder for the plan and the silos' data.")],
    settings: Settings = None,
    data_dir: DataDir = None,
    seed: Seed = None,
) -> None:
    """Write plan and silos to a folder, for `flwr run` with run config workspace="FOLDER"."""
    chosen = scenario_of(scenario, settings, data_dir, seed)
    with Bars() as progress:
        prepared = runs.prepare(chosen, progress)
    runs.write_workspace(prepared, out)
    ready = f"{len(prepared.silos)} silos are ready in {escape(str(out))}"
    out_console.print(f"{ready}. From another folder, run:")
    command = flwr_command(out, len(prepared.silos))
    out_console.print(escape(command), highlight=False, soft_wrap=True)


@app.command()
def loopback(
    scenario: ScenarioName = "three-stores",
    *,
    settings: Settings = None,
    data_dir: DataDir = None,
    seed: Seed = None,
    out: Annotated[Path, typer.Option(help="A new folder.")] = Path("runs/loopback"),
    hosts: Annotated[
        bool, typer.Option("--hosts", help="Every silo on a host of its own (root, Linux).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run SCENARIO as real processes: SuperLink, SuperNodes and agents, with TLS and node keys.

    Exit 0 if the model is that of the run in one process and every ledger holds, else 1.
    """
    stop_on_signals()
    chosen = scenario_of(scenario, settings, data_dir, seed)
    with Bars() as progress:
        prepared = runs.prepare(chosen, progress)
        went = run_as_processes(prepared, out, progress, apart=hosts)
    if as_json:
        print(json.dumps(asdict(went)))
    else:
        for table in loopback_tables(went):
            out_console.print(table)
    if not went.holds:
        raise typer.Exit(1)


@app.command()
def report(
    result: Annotated[Path, typer.Argument(help="A result.json, or the folder that holds it.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Page to write.", show_default="report.html beside the result"),
    ] = None,
) -> None:
    """Draw the page of a finished run again."""
    source = result / "result.json" if result.is_dir() else result
    page = out or source.with_name("report.html")
    write_report(read_result(source), page)
    out_console.print(escape(str(page)))


def _show_plan(prepared: runs.Prepared, *, as_json: bool) -> None:
    plan = prepared.plan
    facts = {
        "plan": plan_facts(plan),
        "privacy": privacy_facts(plan),
        "releases": release_facts(plan),
        "public": dict(plan.public),
    }
    if as_json:
        print(json.dumps(facts))
        return
    out_console.print(plan_table(facts))
    out_console.print("Nothing was spent.")


def main() -> None:
    """Run the command line."""
    run_app(app)
