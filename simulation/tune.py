"""Finds knobs without leaking: on synthetic data, or on data that are declared public.

A knob chosen by looking at customers is a release like any other, and a search looks many times.
So a search runs on an invented marketplace of the scenario's public size, or on a data set that
the user declares public; the scenario file that comes out names which.
"""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from fondaco.shared.config import override, read_toml
from fondaco.shared.errors import ConfigError
from fondaco.shared.models import MODELS

from .global_quality import customer_values, parts_of
from .library import load_scenario, scenario_path
from .run import Prepared, Progress, Stopwatch, federate, prepare, prepare_silos, quiet
from .scenario import DatasetConfig, Scenario

SYNTHETIC_USERS = 4000
SYNTHETIC_ITEMS = 600


@dataclass(frozen=True, kw_only=True)
class Knob:
    """What may be tried: a list of values, or a range (on a log scale)."""

    name: str
    values: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a search found.

    Attributes:
        settings: `a.b=value` each, the best.
        value: headline metric of the global model on validation customers.
        trials: every setting tried and its value.
        tuned_on: which data were looked at.
    """

    settings: tuple[str, ...]
    value: float
    trials: Sequence[tuple[tuple[str, ...], float]]
    tuned_on: str


def parse_knob(text: str) -> Knob:
    """Return the knob of `a.b=1,2,3` (one of these) or `a.b=0.01..0.1` (between these).

    Raises:
        ConfigError: it is neither.
    """
    name, equals, choice = text.partition("=")
    if not equals or not name.strip() or not choice.strip():
        raise ConfigError(f"--knob {text!r} must read a.b=1,2,3 or a.b=0.01..0.1")
    low, dots, high = choice.partition("..")
    if not dots:
        return Knob(name=name.strip(), values=tuple(v.strip() for v in choice.split(",")))
    try:
        bounds = float(low), float(high)
    except ValueError:
        raise ConfigError(f"--knob {text!r}: {choice!r} must be two numbers") from None
    if not 0.0 < bounds[0] < bounds[1] < math.inf:
        raise ConfigError(f"--knob {text!r}: the range must ascend and be > 0")
    whole = "." not in low and "." not in high
    return Knob(name=name.strip(), low=bounds[0], high=bounds[1], whole=whole)


def tune(
    scenario_name: str,
    settings: Sequence[str],
    knobs: Sequence[Knob],
    *,
    trials: int,
    public: bool = False,
    seed: int = 0,
    progress: Progress = quiet,
) -> Tuned:
    """Search the knobs of a scenario and return the best setting.

    Args:
        scenario_name: a name or a .toml file.
        settings: overrides that hold throughout.
        knobs: what is varied.
        trials: settings tried.
        public: whether the scenario's own data may be looked at because they are public.
        seed: of the search and the invented data.
        progress: told per trial.

    Raises:
        ConfigError: optuna is missing, or a knob names no field, or one that nothing reads.
    """
    optuna = _optuna()
    scenario = load_scenario(scenario_name, settings)
    _check_that_they_matter(knobs, scenario)
    tried: list[tuple[tuple[str, ...], float]] = []
    looked_at = prepare(scenario if public else invented(scenario, seed))

    def objective(trial: Any) -> float:  # noqa: ANN401  (optuna's Trial)
        chosen = tuple(f"{knob.name}={_suggest(trial, knob)}" for knob in knobs)
        asked = load_scenario(scenario_name, [*settings, *chosen])
        value = validation_quality(_like(looked_at, asked))
        tried.append((chosen, value))
        progress("trials", len(tried), trials)
        return value

    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=trials)
    best = max(tried, key=lambda one: one[1])
    where = (
        f"{scenario.dataset.name}, declared public" if public else f"synthetic data, seed {seed}"
    )
    return Tuned(settings=best[0], value=best[1], trials=tried, tuned_on=where)


def invented(scenario: Scenario, seed: int) -> Scenario:
    """Return the scenario on a synthetic marketplace of about its declared, public size."""
    declared = scenario.dataset.declared_users
    n_users = min(declared, SYNTHETIC_USERS)
    dataset = DatasetConfig(
        name="synthetic",
        protocol="time",
        valid_from="2024-10-01",
        test_from="2024-11-15",
        n_users=n_users,
        n_items=SYNTHETIC_ITEMS,
        declared_users=n_users,
    )
    silos = replace(scenario.silos, partition="natural", count=scenario.silos.count or 10)
    return replace(scenario, dataset=dataset, silos=silos, seed=seed)


def validation_quality(prepared: Prepared) -> float:
    """Return the headline metric of the global model over all silos' validation customers.

    They are invented or public: this figure leaves the silos.
    """
    with tempfile.TemporaryDirectory() as folder:
        outcome = federate(prepared, Path(folder))
    parts = parts_of(prepared.plan, outcome.model, prepared.market.catalogue)
    values = customer_values(prepared.silos, parts.fused, prepared.scenario, fold="valid")
    return float(values.mean())


def write_tuned(scenario_name: str, settings: Sequence[str], tuned: Tuned, path: Path) -> None:
    """Write a scenario file with the settings found and a line on what was looked at."""
    tables = read_toml(scenario_path(scenario_name))
    found = override(tables, [*settings, *tuned.settings])
    path.write_text(tomli_w.dumps({**found, "tuned_on": tuned.tuned_on}), encoding="utf-8")


def _check_that_they_matter(knobs: Sequence[Knob], scenario: Scenario) -> None:
    for knob in knobs:
        table = knob.name.partition(".")[0]
        if table in MODELS and table not in scenario.models:
            found = [*scenario.models, table]
            raise ConfigError(
                f"--knob {knob.name} changes nothing: models={list(scenario.models)} does not name "
                f"{table}; add --set 'models={json.dumps(found, separators=(',', ':'))}'"
            )


def _like(looked_at: Prepared, asked: Scenario) -> Prepared:
    """The plan of `asked`'s knobs on the silos that may be looked at."""
    known = looked_at.scenario
    scenario = replace(asked, dataset=known.dataset, silos=known.silos, seed=known.seed)
    return prepare_silos(scenario, looked_at.market, looked_at.silos, Stopwatch())


def _suggest(trial: Any, knob: Knob) -> str:  # noqa: ANN401  (optuna's Trial)
    if knob.values:
        return str(trial.suggest_categorical(knob.name, list(knob.values)))
    if knob.whole:
        return str(trial.suggest_int(knob.name, int(knob.low), int(knob.high), log=True))
    return repr(float(trial.suggest_float(knob.name, knob.low, knob.high, log=True)))


def _optuna() -> Any:  # noqa: ANN401  (an optional module)
    try:
        import optuna  # noqa: PLC0415  (an optional extra)
    except ImportError:
        raise ConfigError(
            "tuning needs optuna; install it with pip install 'fondaco[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def facts_of(tuned: Tuned) -> Mapping[str, Any]:
    """Return the search as plain values."""
    return {
        "settings": list(tuned.settings),
        "value": tuned.value,
        "tuned_on": tuned.tuned_on,
        "trials": [{"settings": list(chosen), "value": value} for chosen, value in tuned.trials],
    }
