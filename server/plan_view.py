"""A plan's facts: for machines as plain values, for people as sentences and tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from itertools import groupby
from typing import Any

from rich.markup import escape
from rich.table import Table

from fondaco.shared.calibration import epsilon_in_silos
from fondaco.shared.errors import ConfigError
from fondaco.shared.models.terms import FUSION, FUSION_CLIP
from fondaco.shared.privacy.events import EVERYBODY
from fondaco.shared.privacy.plan import MASKED, RunPlan
from fondaco.shared.provenance import code_digest

_QUANTUM = {
    "x25519": ", which a later quantum computer could break",
    "x25519-mlkem768": ", also against a later quantum computer",
}
SILOS = (1, 2, 3)
"""Numbers of silos that one customer may have rows in, for the worst case."""


def plan_facts(plan: RunPlan, today: date) -> dict[str, Any]:
    """Return all that a person should know of a plan, as plain values.

    Args:
        plan: any.
        today: by which it may have expired (UTC).

    Raises:
        ConfigError: a term of a model cannot be read.
    """
    return {
        "digest": plan.digest,
        "dataset": plan.public.get("dataset", ""),
        "mode": plan.mode,
        "claims": "as planned" if plan.mode == "deploy" else "none (simulation)",
        "expires": plan.expires,
        "expired": not plan.allows(today),
        "code_digest": plan.code_digest,
        "code_is_installed_here": plan.code_digest == code_digest(),
        "catalogue_digest": plan.catalogue_digest,
        "n_items": plan.n_items,
        "head": plan.head,
        "promise": _promise(plan),
        "epsilons": _epsilons(plan),
        "cohort": {**asdict(plan.cohort), "witnesses": plan.witnesses},
        "releases": release_facts(plan),
        "clip_norms": {event.kind: _clip_norm(plan, event.kind) for event in plan.releases},
        "models": {name: dict(terms) for name, terms in plan.models.items()},
        "public": dict(plan.public),
        "earlier": {"plan": plan.earlier_digest, "releases": len(plan.earlier)},
        "silos": list(plan.roster),
        "coordinator": plan.coordinator,
    }


def release_facts(plan: RunPlan) -> list[dict[str, Any]]:
    """Return what each silo would release, in order; rounds of one kind together."""
    groups = [list(group) for _, group in groupby(plan.releases, key=lambda event: event.kind)]
    return [
        {
            "kind": events[0].kind,
            "round": events[0].round_num,
            "rounds": len(events),
            "steps": events[0].steps,
            "dim": events[0].dim,
            "sensitivity": events[0].sens_grid / plan.grid,
            "noise_multiplier": float(events[0].noise_multiplier),
            "silo_noise_multiplier": float(events[0].silo_noise_multiplier),
            "sampling_rate": events[0].sampling_ppm / EVERYBODY,
            "share": sum(map(plan.cost, events)) / plan.budget_units,
        }
        for events in groups
    ]


def _promise(plan: RunPlan) -> dict[str, Any]:
    names = ["unit", "adjacency", "max_silos_per_customer", "trust"]
    names += ["secure_aggregation", "key_agreement", "ring_bits"]
    return {
        **{name: getattr(plan, name) for name in names},
        "target_epsilon": float(plan.target_epsilon),
        "target_delta": float(plan.target_delta),
        "order": plan.order,
        "budget_units": plan.budget_units,
    }


def _epsilons(plan: RunPlan) -> dict[str, Any]:
    """What a customer of one silo is promised by who is trusted, and a customer of several."""
    found = plan.epsilons()
    promise = found["epsilon"]
    return {
        "pld": promise,
        "rdp": found["epsilon_rdp"],
        "against_server": found["all_honest"],
        "against_server_and_colluding_silos": promise,
        "if_masking_broke": found["clear_shares"],
        "in_silos": {str(k): epsilon_in_silos(plan, k) for k in SILOS},
    }


def _clip_norm(plan: RunPlan, kind: str) -> float:
    """C in the model's units; histories of popularity and Gram are scaled to 1."""
    if kind == FUSION:
        return FUSION_CLIP
    text = plan.models.get(kind, {}).get("clip_norm", "1")
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"the plan's {kind}.clip_norm={text!r} is no number") from None


def in_words(facts: Mapping[str, Any]) -> list[str]:
    """Return a plan's facts as sentences."""
    promise, cohort, epsilons = facts["promise"], facts["cohort"], facts["epsilons"]
    kinds = ", ".join(release["kind"] for release in facts["releases"])
    n_rounds = sum(release["rounds"] for release in facts["releases"])
    lines = [
        f"{cohort['n_silos']} silos release {kinds} in {n_rounds} rounds, and nothing else.",
        f"Whoever gives it even odds that a customer took part can be at most "
        f"{_surety(epsilons['pld'])} sure after seeing all of it, except with probability "
        f"{promise['target_delta']:g} ({promise['unit']}, {promise['adjacency']}).",
        f"At least {cohort['n_min']} silos must be present; {cohort['t_collude']} may side with "
        f"the server; {cohort['witnesses']} others must have co-signed a silo's ledger before "
        "its next release.",
        _about_trust(promise, cohort),
        _about_time(facts),
        "It names the client code installed here."
        if facts["code_is_installed_here"]
        else "It names OTHER client code than is installed here: an agent with this code refuses.",
    ]
    if facts["mode"] != "deploy":
        lines.insert(0, "A simulation's plan: noise is seeded, so it claims nothing.")
    if facts["earlier"]["plan"]:
        lines.append(f"Epsilon includes the earlier plan {facts['earlier']['plan'][:19]}.")
    return lines


def plain(text: str) -> str:
    """Return a foreign text as rich may print it: no markup, no control characters."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in text))


def _surety(epsilon: float) -> str:
    return f"{100.0 / (1.0 + math.exp(-epsilon)):.1f} %"


def _about_trust(promise: Mapping[str, Any], cohort: Mapping[str, int]) -> str:
    if promise["trust"] == "silo":
        return "Each silo adds all of the noise itself and trusts neither server nor silos."
    if promise["secure_aggregation"] != MASKED:
        return (
            "The silos share the noise, but secure aggregation is "
            f"{promise['secure_aggregation']} here: whoever adds their sums up sees each of them."
        )
    quantum = _QUANTUM.get(promise["key_agreement"], "")
    return (
        "The silos share the noise and mask their sums, of which the server reads those of at "
        f"least {cohort['n_min']} silos only (masked-sum, keys by {promise['key_agreement']}"
        f"{quantum}, ring of {promise['ring_bits']} bits). It promises nothing where more silos "
        f"collude than {cohort['t_collude']}, nor that a silo tells the truth."
    )


def _about_time(facts: Mapping[str, Any]) -> str:
    if facts["expired"]:
        return f"It EXPIRED on {facts['expires']}: every agent refuses it."
    return f"Nothing may be debited after {facts['expires']}."


def plan_tables(facts: Mapping[str, Any]) -> list[Table]:
    """Return epsilon by situation, the releases, and the terms of the models."""
    return [_epsilon_table(facts), _release_table(facts), _terms_table(facts["models"])]


def _epsilon_table(facts: Mapping[str, Any]) -> Table:
    epsilons, promise = facts["epsilons"], facts["promise"]
    table = _table(
        f"What it costs a customer at δ = {promise['target_delta']:g}", ["who sees what"], ["ε"]
    )
    table.caption = (
        "the promise is certified by PLD; the ledgers' filter counts RDP at order "
        f"{promise['order']}: ε = {epsilons['rdp']:.3f}, {promise['budget_units'] / 1e9:.6f} in all"
    )
    colluding = facts["cohort"]["t_collude"]
    rows = {
        "the server alone, all silos honest": epsilons["against_server"],
        f"the server, and silos that side with it: {colluding} (the promise)": epsilons["pld"],
        "one silo's share in the clear (masking broken, or none)": epsilons["if_masking_broke"],
        **{f"a customer of {k} silos": epsilons["in_silos"][str(k)] for k in SILOS if k > 1},
    }
    for situation, epsilon in rows.items():
        table.add_row(situation, f"{epsilon:.3f}")
    return table


def _release_table(facts: Mapping[str, Any]) -> Table:
    numbers = ("rounds T", "steps", "numbers", "clip C", "q", "noise / C", "each adds", "budget")
    table = _table("What each silo releases", ["release"], numbers)
    for release in facts["releases"]:
        table.add_row(
            plain(release["kind"]),
            str(release["rounds"]),
            str(release["steps"]),
            f"{release['dim']:,}",
            f"{facts['clip_norms'][release['kind']]:g}",
            f"{release['sampling_rate']:g}",
            f"{release['noise_multiplier']:.3f}",
            f"{release['silo_noise_multiplier']:.3f}",
            f"{release['share']:.1%}",
        )
    return table


def _terms_table(models: Mapping[str, Mapping[str, str]]) -> Table:
    table = _table("Terms of the models", ["model", "terms"], [])
    for name, terms in models.items():
        table.add_row(plain(name), plain(", ".join(f"{k} {v}" for k, v in terms.items())))
    return table


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=None)
    for name in texts:
        table.add_column(name, no_wrap=name != "terms")
    for name in numbers:
        table.add_column(name, justify="right")
    return table
