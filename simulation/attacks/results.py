"""Rows of the document that attacks write; see the folder's docstring for its shape."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from .mechanisms import Claim

SCHEMA = 1
KIND = "attacks"
CONFIDENCE = 0.95
LOWER_BOUND, ESTIMATE, RATE = "lower bound", "estimate", "rate"
BELOW, ABOVE = "below claim", "above claim"
OUTSIDE = "outside the claim"
MEASURED = "measured"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one attack says of one target.

    Attributes:
        attack: a name of ATTACKS, or a variant of one.
        target: what was attacked.
        claim_epsilon: of what was attacked [1].
        delta: of the claim [probability].
        estimate: LOWER_BOUND, ESTIMATE or RATE.
        value: the figure itself; of several lower bounds the largest, of estimates the median.
        confidence: of each single bound or interval [probability].
        verdict: BELOW, ABOVE, OUTSIDE or MEASURED.
        power: control -> what the same test says of it.
        false_alarms: `alarms` of `runs` on the installed mechanism.
        settings: how it was made; all of it is public.
    """

    attack: str
    target: str
    claim_epsilon: float
    delta: float
    estimate: str
    value: float
    verdict: str
    confidence: float = CONFIDENCE
    power: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    false_alarms: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def as_facts(self) -> dict[str, Any]:
        """Return the row as JSON holds it."""
        facts = {name: _rounded(value) for name, value in vars(self).items()}
        return dict(sorted(facts.items()))


def of_runs(
    values: Sequence[float],
    broken: Mapping[str, Sequence[float]],
    claim: Claim,
    **named: Any,  # noqa: ANN401  (the other fields of Result)
) -> Result:
    """Return the result of a test that was run several times on right and on broken code.

    Args:
        values: epsilon of each run of the installed mechanism [1].
        broken: control -> the same of a broken one.
        claim: what is promised.
        named: attack, target, estimate, settings.
    """
    alarms = sum(value > claim.epsilon for value in values)
    return Result(
        claim_epsilon=claim.epsilon,
        delta=claim.delta,
        value=max(values),
        verdict=ABOVE if alarms else BELOW,
        power={
            name: {
                "caught": sum(value > claim.epsilon for value in found),
                "runs": len(found),
                "median": float(np.median(found)),
                "values": list(found),
            }
            for name, found in broken.items()
        },
        false_alarms={"alarms": alarms, "runs": len(values)},
        **named,
    )


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time [s]."""
        return round(time.perf_counter() - self._start, 2)


_SIGNS = {LOWER_BOUND: "ε ≥ {:.2f}", ESTIMATE: "ε ~ {:.2f}", RATE: "{:.3f}"}


def results_table(document: Mapping[str, Any]) -> Table:
    """Return every result beside its claim, its power and its false alarms."""
    table = Table(
        title=f"Attacks on {document['scenario']}, seed {document['seed']}",
        title_justify="left",
        caption=_caption(document["results"]),
        caption_justify="left",
        box=None,
    )
    table.add_column("attack, target, settings")
    for name in ("found", "claim ε"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("verdict", "power", "false alarms"):
        table.add_column(name)
    for row in document["results"]:
        alarms = row["false_alarms"]
        table.add_row(
            f"[bold]{row['attack']}[/bold]\n{row['target']}\n{_how(row['settings'])}",
            _SIGNS[row["estimate"]].format(row["value"]),
            f"{row['claim_epsilon']:.2f}",
            row["verdict"],
            "\n".join(_told(name, facts) for name, facts in row["power"].items()) or "-",
            f"{alarms['alarms']}/{alarms['runs']}" if alarms else "-",
        )
    return table


def _caption(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the columns mean, and of each view that was attacked who sees it."""
    seen = {row["settings"]["view"]: row["settings"]["seen_by"] for row in rows if _is_view(row)}
    return "\n".join(
        [
            f"bounds and intervals at {CONFIDENCE:.0%}; of several runs the worst; power: how "
            "often the same test finds broken code, or what it gives without noise; rates are TPR "
            "at 1 % FPR (membership) and AUC (reconstruction)",
            *(f"{view} is seen by {who}" for view, who in seen.items()),
        ]
    )


def _is_view(row: Mapping[str, Any]) -> bool:
    return "seen_by" in row["settings"]


def _how(settings: Mapping[str, Any]) -> str:
    if "canaries" in settings:
        rate, rounds = settings["sampling_rate"], settings["rounds"]
        numbers = f"q={rate:g} T={rounds} m={settings['canaries']}"
        return f"{settings['canary_kind']}\n{numbers}"
    if "popularity auc" in settings:
        return f"popularity {settings['popularity auc']:.3f}"
    return f"AUC {settings['auc']['value']:.3f}"


def _told(name: str, facts: Mapping[str, Any]) -> str:
    if "caught" in facts:
        return f"{name} {facts['caught']}/{facts['runs']}"
    rate = facts.get("tpr at fpr 0.01", facts)
    return f"{name} {rate['value']:.3f}"


def _rounded(value: Any) -> Any:  # noqa: ANN401  (any part of a JSON document)
    if isinstance(value, Mapping):
        return {str(key): _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6)
    return int(value) if isinstance(value, np.integer) else value
