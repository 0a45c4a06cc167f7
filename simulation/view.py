"""Facts -> rich tables for the terminal."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from fondaco.shared import FLOWER_SWITCHES

QUIET = {
    **FLOWER_SWITCHES,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""Nothing is told to Flower or Ray, and Ray listens on the loopback address only."""
_SYSTEMS = ("dp_popularity", "ease_pooled", "own_cf", "silo_alone", "global", "fused")


def budget_table(result: Mapping[str, Any]) -> Table:
    """Return what the run cost a customer, per release."""
    privacy = result["privacy"]
    table = Table(
        title=f"Privacy spent: ε = {privacy['epsilon']:.3f} at δ = {privacy['target_delta']:g} "
        f"per {privacy['unit']}, {privacy['adjacency']}",
        title_justify="left",
        caption=f"trust: {privacy['trust']}; secure aggregation: {_hidden(result)}; "
        f"claims: {privacy['claims']}",
        caption_justify="left",
        box=None,
    )
    _release_columns(table)
    for release in privacy["releases"]:
        table.add_row(*_release_row(release), str(release["n_silos"]))
    return table


def plan_table(facts: Mapping[str, Any]) -> Table:
    """Return a plan that nobody has spent anything on yet."""
    privacy, plan = facts["privacy"], facts["plan"]
    table = Table(
        title=f"Plan {plan['digest'][:19]}: ε = {privacy['epsilon']:.3f} "
        f"(RDP {privacy['epsilon_rdp']:.3f}) at δ = {privacy['target_delta']:g} per "
        f"{privacy['unit']}, {privacy['adjacency']}",
        title_justify="left",
        caption=f"{plan['n_silos']} silos, at least {plan['n_min']} present, "
        f"{plan['t_collude']} colluding; head of {plan['head']} items; trust {privacy['trust']}, "
        f"secure aggregation {_hidden(facts)}",
        caption_justify="left",
        box=None,
    )
    _release_columns(table)
    for release in facts["releases"]:
        table.add_row(*_release_row(release), str(plan["n_silos"]))
    return table


def models_table(result: Mapping[str, Any]) -> Table:
    """Return what each part of the global model costs and what it was found to be worth."""
    edges = result["activity_edges"]
    table = Table(
        title="Parts of the global model",
        title_justify="left",
        caption="weights by a customer's items: under "
        + ", ".join(str(edge) for edge in edges)
        + f", and from {edges[-1]} on; learned from a private release",
        caption_justify="left",
        box=None,
    )
    table.add_column("model")
    for name in ("budget", "numbers", "weights", "rounds took", "private step"):
        table.add_column(name, justify="right")
    for name, facts in result["models"].items():
        ratio = facts["step_ratio"]
        table.add_row(
            name,
            f"{facts['epsilon_share']:.0%}",
            f"{facts['n_params']:,}",
            " ".join(f"{weight:g}" for weight in facts["fusion_weight"]),
            f"{facts['train_s']:.1f} s",
            "-" if ratio is None else f"{ratio:.1f} x",
        )
    return table


def comparison_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Return the headline metric of each system, a column per budget."""
    metric = results[0]["headline"]
    table = Table(title=f"{metric} by budget", title_justify="left", box=None)
    table.add_column("system")
    for result in results:
        table.add_column(f"ε = {result['privacy']['epsilon']:.3g}", justify="right")
    for system in [s for s in _SYSTEMS if s in results[0]["quality"]]:
        cells = [result["quality"][system][metric]["mean"] for result in results]
        table.add_row(system, *(f"{cell:.4f}" for cell in cells))
    return table


def datasets_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the data sets with their sizes; a dash where a set could not be read."""
    table = Table("name", "customers", "items", "rows", "silos", "what", box=None)
    for column in table.columns[1:5]:
        column.justify = "right"
    for row in rows:
        sizes = row.get("sizes") or {}
        keys = ("n_customers", "n_items", "n_interactions", "n_silos")
        numbers = [f"{sizes[key]:,}" if key in sizes else "-" for key in keys]
        table.add_row(row["name"], *numbers, row["title"])
    return table


def datasets_terms(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line per data set: licence, and how to get it where it could not be read."""
    return [
        f"{row['name']}: licence {row['licence']}"
        + ("" if row.get("sizes") else f". To get it: {row['how_to_get']}")
        for row in rows
    ]


def flwr_command(workspace: Path, n_silos: int) -> str:
    """Return a shell command that runs a prepared workspace by Flower alone, and in private."""
    federation = f"num-supernodes={n_silos} client-resources-num-cpus=1"
    checkout = Path(__file__).resolve().parents[1]
    here = str(checkout) if (checkout / "pyproject.toml").is_file() else "PATH_TO_FONDACO"
    run = ["flwr", "run", here, "--stream"]
    run += ["--run-config", f"workspace={json.dumps(str(workspace.resolve()), ensure_ascii=False)}"]
    run += ["--federation-config", federation]
    return shlex.join(["env", *(f"{k}={v}" for k, v in QUIET.items()), *run])


def _hidden(facts: Mapping[str, Any]) -> str:
    """How single shares are hidden, and by which masks if there are any."""
    hidden, plan = facts["privacy"]["secure_aggregation"], facts["plan"]
    if not plan.get("key_agreement"):
        return str(hidden)
    return f"{hidden} ({plan['key_agreement']}, ring of {plan['ring_bits']} bits)"


def _release_columns(table: Table) -> None:
    table.add_column("release")
    for name in ("rounds", "numbers", "share", "noise / sensitivity", "each silo adds", "silos"):
        table.add_column(name, justify="right")


def _release_row(release: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        release["kind"],
        str(release["rounds"]),
        f"{release['dim']:,}",
        f"{release['share']:.0%}",
        f"{release['noise_multiplier']:.3f}",
        f"{release['silo_noise_multiplier']:.3f}",
    )
