"""The report's part about the global model: what it is made of, what each part is worth."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from .charts import number
from .report_figures import Result, change, figure, headline_of, metric_title, plain, real

EIGHT_BIT = "student int8"


def models_section(result: Result) -> dict[str, Any] | None:
    """Return the table of the global model's parts and, in words, whether they were worth it."""
    models = result.get("models") or {}
    if not models:
        return None
    metric = headline_of(result)
    single = len(models) == 1
    return {
        "buckets": _buckets(result.get("activity_edges", ())),
        "rows": [_row(result, name, part, metric, single) for name, part in models.items()],
        "metric": metric_title(metric),
        "worth": _worth(result.get("worth") or {}, metric),
        "students": _students(result.get("students") or {}),
    }


def _row(
    result: Result, name: str, part: Mapping[str, Any], metric: str, single: bool
) -> dict[str, str]:
    alone = figure(result, "global" if single else f"global_{name}", metric).mean
    ratio = real(part.get("step_ratio"))
    weights = part.get("fusion_weight", ())
    return {
        "name": name.replace("_", " "),
        "share": f"{100 * real(part.get('epsilon_share')):.0f} %",
        "numbers": plain(part.get("n_params")),
        "weights": " · ".join(f"{real(weight):g}" for weight in weights),
        "idle": "yes" if weights and not any(weights) else "",
        "alone": number(alone) if math.isfinite(alone) else "—",
        "seconds": f"{real(part.get('train_s')):.1f} s",
        "ratio": f"{ratio:.2g} times" if math.isfinite(ratio) else "—",
    }


def _buckets(edges: Sequence[Any]) -> str:
    """Return in words which customers the weights are for."""
    if not edges:
        return ""
    spans = [f"under {edges[0]}"]
    spans += [f"{low} to {high - 1}" for low, high in pairwise(edges)]
    return ", ".join([*spans, f"{edges[-1]} and more"]) + " items in the history"


def _worth(worth: Mapping[str, Any], metric: str) -> str:
    """Return what the other parts brought beside the first with the whole budget."""
    if not worth:
        return ""
    gain, part = worth["gain"], str(worth["part"])
    together, alone = real(worth["together"]), real(worth["alone"])
    words = (
        f"All parts together reach {metric_title(metric)} of {number(together)}; {part} alone, "
        f"with the whole budget to itself, {number(alone)} ({change(together, alone)}, 95 % "
        f"interval of the difference {gain['low']:+.4f} to {gain['high']:+.4f})."
    )
    if gain["low"] > 0:
        return f"{words} The other parts earn their share."
    if gain["high"] < 0:
        return f"{words} Here the other parts cost more than they bring."
    return f"{words} The two cannot be told apart."


def _students(students: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one row per form of the global model."""
    teacher = students.get("teacher", {})
    return [
        {
            "name": name,
            "quality": number(real(form.get("quality"))),
            "change": change(real(form.get("quality")), real(teacher.get("quality"))),
            "size": f"{real(form.get('size_bytes')) / 2**10:,.0f} KiB",
            "latency": f"{real(form.get('latency_ms')):.2f} ms",
        }
        for name, form in students.items()
    ]
