"""result.json -> one self-contained page, one table for the terminal, one data frame.

A page loads nothing: no script, font or style from anywhere. Every text of the result (silo ids
above all) is escaped by the template engine or by `charts`. The same result gives the same bytes.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.markup import escape
from rich.table import Table

from fondaco.shared.errors import ConfigError

from . import charts
from .charts import Estimate, Line, number
from .report_figures import (
    Result,
    change,
    describe,
    figure,
    headline_of,
    in_order,
    metric_title,
    metrics_of,
    plain,
    real,
    systems_of,
)
from .report_models import models_section
from .report_sections import (
    cold_section,
    facts,
    privacy_section,
    quality_chart,
    quality_rows,
    silo_section,
    spectrum_section,
    timing_chart,
)

CAVEATS = (
    "The guarantee is about one customer of a silo. It does not hide the totals of a whole silo "
    "such as its turnover; only secure aggregation does, down to the sum of the other silos.",
    "Rows that stay at a silo are not protected from the silo's own staff, nor is anything that "
    "the owner of the silo writes to logs.",
    "The catalogue counts as public. If it were made from what sold, it would itself leak.",
    "Recommendations are computed from a customer's own history and shown to that customer; "
    "whoever sees the list learns something about that history.",
    "Customers who act alike because they belong together (a household) are protected one by "
    "one, not together, unless the unit of privacy is the household.",
    "A customer of several silos is covered only up to the number of silos the plan declares.",
)
"""What differential privacy does not cover, for a reader who never met the term."""

_COMPARED = ("dp_popularity", "own_cf", "silo_alone", "ease_pooled")
_CURVES = ("fused", "global")
_AT_A_GLANCE = ("ndcg@10", "recall@20", "coverage@10")
"""What 80 columns hold beside the headline."""


def write_report(result: Result, path: Path) -> None:
    """Write the page of one run.

    Args:
        result: a `result.json` of schema 1; every part but `quality` may be missing.
        path: the HTML file to write.

    Raises:
        ConfigError: the result has no quality figures.
    """
    path.write_text(_render("report.html", _report_context(result)), encoding="utf-8")


def write_comparison(results: Sequence[Result], path: Path) -> None:
    """Write the page that sets runs of one scenario at several epsilons side by side.

    Args:
        results: `result.json` contents, in any order.
        path: the HTML file to write.

    Raises:
        ConfigError: there is no result, or one lacks its quality figures or epsilon.
    """
    path.write_text(_render("comparison.html", _comparison_context(results)), encoding="utf-8")


def summary_table(result: Result) -> Table:
    """Return systems x chosen metrics, the headline's with intervals, for 80 columns.

    The page and `result.json` hold every metric.
    """
    headline = headline_of(result)
    measured = metrics_of(result)
    shown = [headline, *(m for m in _AT_A_GLANCE if m in measured and m != headline)]
    privacy = result.get("privacy", {})
    title = f"{result.get('scenario', '')}, ε = {plain(privacy.get('epsilon'))}"
    table = Table(title=escape(title), caption=escape("mean over customers [95 % interval]"))
    table.add_column("system")
    for metric in shown:
        style = "bold" if metric == headline else None
        table.add_column(escape(metric), justify="right", style=style, no_wrap=True)
    for system in systems_of(result):
        cells = [_terminal_cell(result, system, metric) for metric in shown]
        table.add_row(escape(system), *cells, style="green" if system == "fused" else None)
    return table


def summary_frame(result: Result) -> pd.DataFrame:
    """Return one row per system and metric: system, metric, mean, low, high, n."""
    rows = [
        {"system": system, "metric": metric, **result["quality"][system][metric]}
        for system in systems_of(result)
        for metric in metrics_of(result)
        if metric in result["quality"][system]
    ]
    return pd.DataFrame(rows, columns=["system", "metric", "mean", "low", "high", "n"])


def _render(template: str, context: dict[str, Any]) -> str:
    loader = PackageLoader("fondaco.simulation", "templates")
    env = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(number=number, plain=plain)
    return env.get_template(template).render(context)


def _report_context(result: Result) -> dict[str, Any]:
    headline = headline_of(result)
    return {
        "title": str(result.get("scenario", "run")),
        "headline_metric": metric_title(headline),
        "headline": _sentence(result, headline),
        "epsilon": plain(result["privacy"]["epsilon"]) if "privacy" in result else "",
        "tiles": _tiles(result, headline),
        "quality_chart": quality_chart(result, headline),
        "metrics": [metric_title(metric) for metric in metrics_of(result)],
        "quality": quality_rows(result["quality"], metrics_of(result)),
        "models": models_section(result),
        "silos": silo_section(result, headline),
        "privacy": privacy_section(result),
        "spectrum": spectrum_section(result),
        "cold": cold_section(result),
        "timings": timing_chart(result),
        "dropped": list(result.get("dropped", ())),
        "caveats": CAVEATS,
        "notes": [str(note) for note in result.get("notes", ())],
        "facts": facts(result),
    }


def _comparison_context(results: Sequence[Result]) -> dict[str, Any]:
    runs = sorted(results, key=_epsilon)
    if not runs:
        raise ConfigError("nothing to compare; expected at least one result")
    metric, xs = headline_of(runs[-1]), [_epsilon(run) for run in runs]
    lines = []
    for system in _CURVES:
        points = [figure(run, system, metric) for run in runs]
        if any(math.isfinite(point.mean) for point in points):
            lines.append(Line(label=points[0].label, kind=points[0].kind, points=points))
    references = [figure(runs[-1], system, metric) for system in _COMPARED]
    references = [ref for ref in references if math.isfinite(ref.mean)]
    gains = [(x, _sentence(run, metric)["alone"]) for x, run in zip(xs, runs, strict=True)]
    named = ", ".join(line.label for line in lines)
    alt = f"{metric_title(metric)} of {named} for ε from {xs[0]:g} to {xs[-1]:g}"
    return {
        "title": str(runs[0].get("scenario", "comparison")),
        "headline_metric": metric_title(metric),
        "gains": [(f"{x:g}", gain) for x, gain in gains if gain],
        "chart": charts.line_plot(xs, lines, references, alt),
        "epsilons": [f"{x:g}" for x in xs],
        "rows": _comparison_rows(runs, metric),
        "references": [ref.label for ref in references],
        "caveats": CAVEATS,
        "notes": list(dict.fromkeys(str(n) for run in runs for n in run.get("notes", ()))),
        "facts": facts(runs[0]),
    }


def _comparison_rows(
    runs: Sequence[Result], metric: str
) -> list[tuple[str, str, str, list[Estimate]]]:
    """Return (title, CSS class, explanation, one figure per run) of every system of any run."""
    systems = dict.fromkeys(system for run in runs for system in systems_of(run))
    order = in_order(systems)
    return [(*describe(s)[:2], "", [figure(run, s, metric) for run in runs]) for s in order]


def _epsilon(result: Result) -> float:
    value = real(result.get("privacy", {}).get("epsilon"))
    if not value > 0:
        raise ConfigError("result has no positive privacy.epsilon; a comparison needs one per run")
    return value


def _terminal_cell(result: Result, system: str, metric: str) -> str:
    shown = figure(result, system, metric)
    if metric != headline_of(result) or not math.isfinite(shown.low):
        return number(shown.mean)
    return escape(f"{number(shown.mean)} [{shown.low:.3f}, {shown.high:.3f}]")


def _sentence(result: Result, metric: str) -> dict[str, str]:
    """Return what silos gained, in words, with how sure that is."""
    fused, alone = figure(result, "fused", metric), figure(result, "silo_alone", metric)
    own = figure(result, "own_cf", metric)
    if not math.isfinite(fused.mean):
        return {"fused": "", "alone": "", "own": "", "sure": ""}
    sure = ""
    if fused.low > alone.high:
        sure = "The two 95 % intervals do not overlap."
    elif math.isfinite(fused.low) and math.isfinite(alone.high):
        sure = "The 95 % intervals of fused and alone overlap."
    return {
        "fused": number(fused.mean),
        "alone": change(fused.mean, alone.mean) if math.isfinite(alone.mean) else "",
        "own": change(fused.mean, own.mean) if math.isfinite(own.mean) else "",
        "sure": sure,
    }


def _tiles(result: Result, metric: str) -> list[tuple[str, str, str]]:
    """Return (label, figure, explanation) of the few numbers a reader wants at once."""
    privacy, dataset = result.get("privacy", {}), result.get("dataset", {})
    tiles = []
    if "epsilon" in privacy:
        delta = plain(privacy.get("target_delta"))
        tiles.append(("Privacy", f"ε = {plain(privacy['epsilon'])}", f"per customer, δ = {delta}"))
    if "n_silos" in dataset:
        customers = f"{plain(dataset.get('n_customers'))} customers"
        tiles.append(("Silos", plain(dataset["n_silos"]), customers))
    for system in ("silo_alone", "global", "fused"):
        shown = figure(result, system, metric)
        if math.isfinite(shown.mean):
            tiles.append((shown.label, number(shown.mean), metric_title(metric)))
    return tiles
