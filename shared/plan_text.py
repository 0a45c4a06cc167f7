"""RunPlan <-> TOML that a person can read; rounds that are alike stand together.

The digest is always that of the plan's canonical JSON, so a comment or the order of the tables
changes nothing, and any value does.
"""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .privacy.events import PrivacyEvent
from .privacy.plan import MAX_RELEASES, Cohort, RunPlan

_PROMISE = (
    "unit",
    "adjacency",
    "max_silos_per_customer",
    "trust",
    "secure_aggregation",
    "key_agreement",
    "ring_bits",
    "target_epsilon",
    "target_delta",
    "order",
    "budget_units",
    "grid",
)
_RELEASES = ("releases", "earlier")
_TABLES = ("cohort", "models", "public", "roster", *_RELEASES)


def read_plan(path: Path) -> RunPlan:
    """Return the plan in a `.toml` file, or in the canonical JSON of any other.

    Raises:
        ConfigError: the file is missing or holds no plan.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a plan: {error}") from None
    return from_toml(text) if path.suffix == ".toml" else RunPlan.from_json(text)


def to_toml(plan: RunPlan) -> str:
    """Return the plan as commented TOML; `from_toml` gives the same plan back."""
    raw = asdict(plan)
    epsilons = plan.epsilons()
    plain = [n for n in raw if n not in (*_PROMISE, *_TABLES, "witnesses")]
    lines = [
        "# All that may ever leave a silo under this plan; signed by every data owner.",
        f"# digest {plan.digest}",
        *_pairs({name: raw[name] for name in plain}),
        "",
        "[promise]",
        f"# all of it costs one customer epsilon {epsilons['epsilon']:.4f} (certified by PLD),",
        f"# {epsilons['epsilon_rdp']:.4f} as the filter counts (RDP), and "
        f"{epsilons['clear_shares']:.2f} if masking broke",
        *_pairs({name: raw[name] for name in _PROMISE}),
        "",
        "[cohort]",
        *_pairs({**raw["cohort"], "witnesses": plan.witnesses}),
    ]
    for name in _RELEASES:
        for first, rounds in _grouped(getattr(plan, name)):
            lines += ["", f"[[{name}]]", *_release(first, rounds)]
    for name, terms in raw["models"].items():
        lines += ["", f"[models.{json.dumps(name)}]", *_pairs(terms)]
    for name in ("public", "roster"):
        lines += ["", f"[{name}]", *_pairs(raw[name])]
    return "\n".join(lines) + "\n"


def from_toml(text: str) -> RunPlan:
    """Return the plan written by `to_toml`.

    Raises:
        ConfigError: the text is no such plan, or holds a key that no plan has.
    """
    try:
        raw = tomllib.loads(text)
        promise, cohort = raw.pop("promise"), raw.pop("cohort")
        witnesses = cohort.pop("witnesses")
        rounds = [table["rounds"] for name in _RELEASES for table in raw.get(name, [])]
        if sum(rounds) > MAX_RELEASES:
            raise ConfigError(f"a plan of more than {MAX_RELEASES} releases is out of range")
        for name in _RELEASES:
            raw[name] = tuple(e for table in raw.pop(name, []) for e in _events(table))
        raw.setdefault("models", {})
        misplaced = set(promise) ^ set(_PROMISE) | set(promise) & set(raw)
        known = {field.name for field in fields(RunPlan)}
        if misplaced or set(raw) | set(promise) | {"cohort", "witnesses"} != known:
            odd = misplaced | ((set(raw) | {"cohort", "witnesses"}) ^ (known - set(_PROMISE)))
            raise ConfigError(f"this is no plan: keys {sorted(odd)} are missing or unknown")
        return RunPlan(**raw, **promise, cohort=Cohort(**cohort), witnesses=witnesses)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ConfigError(f"this is no plan in TOML: {error}") from error


def _grouped(events: Iterable[PrivacyEvent]) -> Iterator[tuple[PrivacyEvent, int]]:
    """Yield the first of each run of consecutive rounds that are alike, and their number."""
    first, rounds = None, 0
    for event in events:
        if first is not None and event == replace(first, round_num=first.round_num + rounds):
            rounds += 1
            continue
        if first is not None:
            yield first, rounds
        first, rounds = event, 1
    if first is not None:
        yield first, rounds


def _release(first: PrivacyEvent, rounds: int) -> list[str]:
    values = asdict(first)
    start = values.pop("round_num")
    noise = f"# noise / sensitivity {float(first.noise_multiplier):.4f}"
    shape = {"kind": values.pop("kind"), "first_round": start, "rounds": rounds}
    return [*_pairs({**shape, **values}), noise]


def _events(table: dict[str, Any]) -> Iterator[PrivacyEvent]:
    first, rounds = table.pop("first_round"), table.pop("rounds")
    if not (type(first) is type(rounds) is int and 0 < rounds <= MAX_RELEASES):
        raise ConfigError(f"a release of {rounds!r} rounds from {first!r} is out of range")
    event = PrivacyEvent(**table, round_num=first)
    return (replace(event, round_num=first + later) for later in range(rounds))


def _pairs(values: Mapping[str, Any]) -> list[str]:
    """Return `key = value` lines; texts and integers are the same in JSON and TOML."""
    return [f"{_key(name)} = {_value(value)}" for name, value in values.items()]


def _key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else _value(name)


def _value(value: object) -> str:
    return json.dumps(value).replace("\x7f", "\\u007f")
