"""Reading `result.json`: which systems and metrics it has, and its figures as people see them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from fondaco.shared.errors import ConfigError

from .charts import MINUS, Estimate

Result = Mapping[str, Any]

SYSTEMS = {
    "fused": ("Fused", "fused", "the silo's mix of global, own statistics and content"),
    "global": ("Global", "global", "the private federated model alone"),
    "dp_popularity": ("DP popularity", "rest", "the private popularity release alone"),
    "silo_alone": ("Silo alone", "alone", "own statistics and content, nobody else"),
    "content_alone": ("Content alone", "rest", "likeness to the customer's own history alone"),
    "own_cf": ("Own statistics", "rest", "the silo's own co-purchases alone"),
    "popularity": ("Popularity", "pooled", "all rows in one place, no privacy"),
    "item_knn": ("Item k-NN", "pooled", "all rows in one place, no privacy"),
    "ease_pooled": ("EASE pooled", "pooled", "all rows in one place, no privacy"),
    "ials_pooled": ("iALS pooled", "pooled", "all rows in one place, no privacy"),
}
"""Title, CSS class and one line of explanation of every system, in the order of the page."""


def headline_of(result: Result) -> str:
    """Return the metric shown first: the named one, else the first of `fused` (or of any)."""
    quality = result.get("quality") or {}
    if not quality:
        raise ConfigError("result has no `quality` figures; expected result.json of schema 1")
    named = result.get("headline")
    first = quality.get("fused") or next(iter(quality.values()))
    return str(named) if named in first else next(iter(first))


def systems_of(result: Result) -> list[str]:
    """Return the systems of the result, known ones first and in the order of `SYSTEMS`."""
    return in_order(result["quality"])


def in_order(systems: Iterable[str]) -> list[str]:
    """Return known systems in the order of `SYSTEMS`, parts of the global model below it."""
    names = list(systems)
    strange = [name for name in names if name not in SYSTEMS]
    parts = [name for name in strange if name.startswith("global_")]
    found = [name for name in SYSTEMS if name in names]
    place = found.index("global") + 1 if "global" in found else len(found)
    others = [name for name in strange if name not in parts]
    return [*found[:place], *parts, *found[place:], *others]


def metrics_of(result: Result) -> list[str]:
    """Return every metric of the result, the headline first."""
    seen = dict.fromkeys([headline_of(result)])
    for figures in result["quality"].values():
        seen.update(dict.fromkeys(figures))
    return list(seen)


def describe(system: str) -> tuple[str, str, str]:
    """Return (title, CSS class, explanation); an unknown system is its own title."""
    kind, _, part = system.partition("_")
    if kind == "global" and part:
        name = "MF" if part == "mf" else part.replace("_", " ").capitalize()
        return name, "rest", "this part of the global model alone"
    return SYSTEMS.get(system, (system, "rest", ""))


def metric_title(metric: str) -> str:
    """Return "NDCG@20" for "ndcg@20"."""
    kind, _, length = metric.partition("@")
    name = "NDCG" if kind == "ndcg" else kind.capitalize()
    return f"{name}@{length}" if length else name


def figure(result: Result, system: str, metric: str) -> Estimate:
    """Return the overall figure of a system, NaN where the result has none."""
    return estimate(system, result["quality"].get(system, {}).get(metric))


def estimate(system: str, cell: object) -> Estimate:
    """Return the figure of a `{mean, low, high, n}` cell or of a bare number."""
    title, kind, _ = describe(system)
    if not isinstance(cell, Mapping):
        return Estimate(label=title, kind=kind, mean=real(cell))
    low, high = real(cell.get("low")), real(cell.get("high"))
    return Estimate(label=title, kind=kind, mean=real(cell.get("mean")), low=low, high=high)


def real(value: object) -> float:
    """Return a number as float, NaN for anything else."""
    return float(value) if isinstance(value, Real) else math.nan


def change(new: float, old: float) -> str:
    """Return "+12.3 %" of `new` over `old`, with a true minus sign."""
    if not (math.isfinite(new) and math.isfinite(old) and old > 0):
        return "—"
    return f"{100 * (new / old - 1):+.1f} %".replace("-", MINUS)


def plain(value: object) -> str:
    """Return a fact for people: whole numbers with commas, few digits, lists and tables inline."""
    if value is None:
        return "—"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain(inner) for inner in value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    value = float(value)
    if value.is_integer() and abs(value) < 1e15:  # noqa: PLR2004
        return f"{int(value):,}"
    return f"{value:.4g}".replace("e-0", "e-").replace("-", MINUS)
