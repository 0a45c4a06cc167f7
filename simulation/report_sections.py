"""The parts of a report that need more than one figure: silos, privacy, spectrum, timings."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from . import charts
from .charts import Estimate, number
from .report_figures import (
    Result,
    describe,
    estimate,
    figure,
    in_order,
    metric_title,
    plain,
    real,
    systems_of,
)

_MANY_SILOS = 60
_GROUPS = 5
_EPSILONS = {
    "all_honest": "server sees only the sum",
    "server_and_colluders": "server and colluding silos pool what they know",
    "masking_broken": "secure aggregation fails",
}
_CLEAR = {
    "masked-sum": "masks break, and each silo's share is seen alone",
    "simulated": "each silo's share is seen alone, as here: secure aggregation is only simulated",
    "none": "each silo's share is seen alone, as here: each adds all of the noise itself",
}
"""What stands for `masking_broken` where the result says how shares are hidden."""
_WORDS = {
    "adjacency": "neighbours",
    "epsilon_rdp": "ε by RDP",
    "grid": "integer grid",
    "head": "head [items]",
    "key_agreement": "masks agreed by",
    "n": "number",
    "n_customers": "customers",
    "n_interactions": "interactions",
    "n_items": "items",
    "n_min": "silos needed",
    "n_silos": "silos",
    "name": "data set",
    "noise_stddevs": "noise",
    "ring_bits": "ring [bits]",
    "t_collude": "may collude",
}


def quality_chart(result: Result, metric: str) -> Markup:
    """Return the headline metric of every system with its interval."""
    rows = [figure(result, system, metric) for system in systems_of(result)]
    rows = [row for row in rows if math.isfinite(row.mean)]
    named = ", ".join(f"{row.label} {number(row.mean)}" for row in rows)
    return charts.interval_plot(rows, f"{metric_title(metric)} of every system: {named}")


def quality_rows(
    quality: Mapping[str, Any], metrics: Sequence[str]
) -> list[tuple[str, str, str, list[Estimate]]]:
    """Return (title, CSS class, explanation, figures) per system, known systems first."""
    return [
        (*describe(system), [estimate(system, quality[system].get(m)) for m in metrics])
        for system in in_order(quality)
    ]


def silo_section(result: Result, metric: str) -> dict[str, Any] | None:
    """Return per-silo charts: every silo when few, groups of like size and a scatter when many."""
    silos = sorted(result.get("per_silo", ()), key=_silo_order)
    if not silos:
        return None
    rows = [(str(s["silo_id"]), _silo_marks(s, metric)) for s in silos]
    gains = [m[2].mean - m[0].mean for _, m in rows]
    known = [gain for gain in gains if math.isfinite(gain)]
    groups = _silo_groups(silos, rows)
    shown = rows if len(rows) <= _MANY_SILOS else groups
    alt = f"{metric_title(metric)} alone, global and fused of {len(shown)} silos or groups of silos"
    return {
        "n": len(silos),
        "sized": all(_n_customers(silo) is not None for silo in silos),
        "grouped": len(rows) > _MANY_SILOS,
        "better": sum(gain > 0 for gain in known),
        "equal": sum(gain == 0 for gain in known),
        "worse": sum(gain < 0 for gain in known),
        "chart": charts.silo_plot(shown, alt),
        "scatter": _gain_chart(silos, gains),
        "rows": [(label, _n_customers(s), m) for s, (label, m) in zip(silos, rows, strict=True)],
    }


def privacy_section(result: Result) -> dict[str, Any]:
    """Return who learns how much, what each release cost, and the facts of the plan."""
    privacy, plan = result.get("privacy", {}), result.get("plan", {})
    hidden = ("epsilon", "releases", "target_delta")
    facts = {key: value for key, value in privacy.items() if key not in hidden}
    unused = [key for key in ("key_agreement", "ring_bits") if not plan.get(key)]
    plan = {key: value for key, value in plan.items() if key not in unused}
    return {
        "epsilons": _epsilon_rows(result),
        "budget": _budget_chart(privacy.get("releases", ())),
        "facts": [(_words(key), plain(value)) for key, value in {**facts, **plan}.items()],
    }


def _epsilon_rows(result: Result) -> list[tuple[str, str]]:
    """Return (who learns what, epsilon) of `epsilons`; `silos` is for customers of several."""
    privacy = result.get("privacy", {})
    epsilons = result.get("epsilons") or privacy.get("epsilons") or {}
    clear = _CLEAR.get(str(privacy.get("secure_aggregation")), _EPSILONS["masking_broken"])
    words = {**_EPSILONS, "masking_broken": clear}
    rows = []
    for key, value in epsilons.items():
        if key == "silos":
            several = {k: eps for k, eps in value.items() if str(k) != "1"}
            rows += [(f"a customer of {k} silos", plain(eps)) for k, eps in several.items()]
        else:
            rows.append((words.get(key, _words(key)), plain(value)))
    return rows


def _budget_chart(releases: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Return each release's planned part of the budget (of mu squared)."""
    spent = [(r, real(r.get("share"))) for r in releases if real(r.get("share")) > 0]
    if not spent:
        return None
    total = sum(cost for _, cost in spent)
    rows = []
    for release, cost in spent:
        label = str(release.get("kind", "release"))
        rounds = int(release.get("rounds", 1))
        label += f", {rounds} rounds" if rounds > 1 else ""
        text = f"{100 * cost / total:.1f} %, noise {release['noise_multiplier']:.3g}"
        rows.append((label, cost / total, text))
    named = ", ".join(f"{label} {100 * share:.1f} percent" for label, share, _ in rows)
    return charts.bar_plot(rows, f"share of the budget per release: {named}")


def spectrum_section(result: Result) -> dict[str, Any] | None:
    """Return the chart of the Gram's eigenvalues with the count that stands above the noise."""
    spectrum = result.get("spectrum") or {}
    values, edge = spectrum.get("eigenvalues") or [], real(spectrum.get("noise_edge"))
    if not values or not edge > 0:
        return None
    above = sum(value > edge for value in values)
    alt = f"eigenvalues of the released Gram: {above} of {len(values)} above the edge {edge:.3g}"
    return {
        "above": above,
        "n": len(values),
        "edge": f"{edge:.3g}",
        "chart": charts.spectrum_plot(values, edge, alt),
    }


def cold_section(result: Result) -> list[dict[str, Any]]:
    """Return one table for cold customers and one for cold items; other entries become facts."""
    tables = []
    for who, part in (result.get("cold") or {}).items():
        quality = {
            name: part[name]
            for name in in_order(part)
            if isinstance(part[name], Mapping) and part[name]
        }
        facts = [(_words(k), plain(v)) for k, v in part.items() if not isinstance(v, Mapping)]
        names = list(dict.fromkeys(metric for cells in quality.values() for metric in cells))
        if quality or facts:
            rows = [(title, kind, "", row) for title, kind, _, row in quality_rows(quality, names)]
            titles = [metric_title(name) for name in names]
            tables.append({"who": who, "facts": facts, "metrics": titles, "rows": rows})
    return tables


def timing_chart(result: Result) -> Markup | None:
    """Return seconds per stage, in the order in which they ran."""
    timings = {k: real(v) for k, v in (result.get("timings_s") or {}).items()}
    rows = [(_words(k), v, f"{v:.3g} s") for k, v in timings.items() if math.isfinite(v)]
    if not rows:
        return None
    return charts.bar_plot(rows, "seconds per stage: " + ", ".join(f"{r[0]} {r[2]}" for r in rows))


def facts(result: Result) -> list[tuple[str, str]]:
    """Return what someone needs to repeat the run."""
    facts = dict(result.get("dataset", {}))
    facts.update({key: result[key] for key in ("seed", "code_digest") if key in result})
    facts.update({key: result[key] for key in ("machine", "versions") if key in result})
    if "peak_rss_bytes" in result:
        facts["peak memory"] = f"{real(result['peak_rss_bytes']) / 2**20:,.0f} MiB"
    return [(_words(key), plain(value)) for key, value in facts.items()]


def _words(key: str) -> str:
    return _WORDS.get(key, key.replace("_", " "))


def _n_customers(silo: Mapping[str, Any]) -> int | None:
    value = silo.get("n_customers")
    return int(value) if value is not None else None


def _silo_order(silo: Mapping[str, Any]) -> tuple[int, str]:
    return -(_n_customers(silo) or 0), str(silo["silo_id"])


def _silo_marks(silo: Mapping[str, Any], metric: str) -> list[Estimate]:
    systems = ("silo_alone", "global", "fused")
    return [estimate(system, silo.get(system, {}).get(metric)) for system in systems]


def _silo_groups(
    silos: Sequence[Mapping[str, Any]], rows: Sequence[tuple[str, Sequence[Estimate]]]
) -> list[tuple[str, list[Estimate]]]:
    """Return fifths of the silos in their order (by size where known), each with mean figures."""
    groups = []
    for part in np.array_split(np.arange(len(rows)), min(_GROUPS, len(rows))):
        sizes = [_n_customers(silos[num]) for num in part]
        label = f"silos {part[0] + 1} to {part[-1] + 1}"
        if all(size is not None for size in sizes):
            label = f"{min(sizes):,} to {max(sizes):,}"  # type: ignore[type-var]
        groups.append((label, [_mean(rows[num][1][at] for num in part) for at in range(3)]))
    return groups


def _mean(estimates: Iterable[Estimate]) -> Estimate:
    seen = list(estimates)
    finite = [e.mean for e in seen if math.isfinite(e.mean)]
    mean = sum(finite) / len(finite) if finite else math.nan
    return Estimate(label=seen[0].label, kind=seen[0].kind, mean=mean)


def _gain_chart(silos: Sequence[Mapping[str, Any]], gains: Sequence[float]) -> Markup | None:
    pairs = [
        (float(size), gain)
        for size, gain in zip(map(_n_customers, silos), gains, strict=True)
        if size and math.isfinite(gain)
    ]
    if len(pairs) < _GROUPS:
        return None
    alt = f"gain of fused over alone against the size of {len(pairs)} silos"
    return charts.gain_scatter([p[0] for p in pairs], [p[1] for p in pairs], alt)
