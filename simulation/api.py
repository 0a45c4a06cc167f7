"""The Python face: data frames in, data frames out, your own ids."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pandas as pd

from fondaco.client.serving import fit_recommender
from fondaco.client.serving.lists import SiloState
from fondaco.shared.errors import ConfigError, DataError
from fondaco.shared.models import PublicFacts
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.models.terms import PlannedModels

from . import run as runs
from .library import load_scenario
from .report import summary_frame, write_report
from .result import write_result


class Study:
    """A finished simulation of a federation; made by `simulate` and `simulate_frames`.

    Attributes:
        result: what `result.json` holds.
        out: folder of ledgers, model, result and report.
    """

    def __init__(self, simulation: runs.Simulation, out: Path) -> None:
        self._simulation = simulation
        self.result: Mapping[str, Any] = simulation.result
        self.out = out
        self._states = lru_cache(maxsize=None)(self._open)

    @property
    def silo_ids(self) -> list[str]:
        """The silos, in order."""
        return self._simulation.prepared.silo_ids

    @property
    def epsilon(self) -> float:
        """What the run would cost a customer, with noise that nobody can reproduce [1]."""
        return float(self.result["privacy"]["epsilon"])

    def summary(self) -> pd.DataFrame:
        """Return one row per system and metric: system, metric, mean, low, high, n."""
        return summary_frame(dict(self.result))

    def recommend(self, silo_id: str, user_id: str, n: int = 10) -> pd.DataFrame:
        """Return up to `n` rows, best first: item_id, text, score, global, own, content.

        Raises:
            DataError: no such silo, or no such customer there.
        """
        return pd.DataFrame(self._states(silo_id).recommend(str(user_id), n))

    def _open(self, silo_id: str) -> SiloState:
        prepared = self._simulation.prepared
        if silo_id not in prepared.silo_ids:
            raise DataError(
                f"no silo {silo_id!r}; there are {', '.join(prepared.silo_ids[:5])} ..."
            )
        dataset = prepared.silos[prepared.silo_ids.index(silo_id)]
        scenario = prepared.scenario
        facts = PublicFacts(
            catalogue=prepared.market.catalogue, model=self._simulation.outcome.model
        )
        recommender = fit_recommender(
            dataset,
            prepared.market.catalogue,
            GlobalParts(PlannedModels.of_plan(prepared.plan), facts),
            scenario.fusion,
            metric=scenario.evaluation.headline,
            declared_users=scenario.dataset.declared_users,
            repeats=scenario.dataset.keep_repeats,
        )
        return SiloState(
            dataset=dataset,
            catalogue=prepared.market.catalogue,
            recommender=recommender,
            keep_repeats=scenario.dataset.keep_repeats,
        )


def simulate(scenario: str, settings: Sequence[str] = (), out: str | Path | None = None) -> Study:
    """Run a named scenario, as `fondaco-simulate run` does.

    Args:
        scenario: a name or a .toml file.
        settings: `a.b=value` each.
        out: folder for results; a temporary one by default.

    Raises:
        FondacoError: whatever is wrong, in one line.
    """
    folder = Path(out) if out is not None else Path(mkdtemp(prefix="fondaco-"))
    simulation = runs.simulate(runs.prepare(load_scenario(scenario, settings)), folder)
    write_result(simulation.result, folder)
    write_report(dict(simulation.result), folder / "report.html")
    return Study(simulation, folder)


def simulate_frames(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    *,
    silo_column: str,
    epsilon: float = 4.0,
    settings: Sequence[str] = (),
    out: str | Path | None = None,
) -> Study:
    """Run a federation over your own tables.

    Args:
        interactions: user_id, item_id, `silo_column`, and maybe time and rating.
        items: item_id, and any of text, category, brand, price, year.
        silo_column: column of `interactions` that names the data owner of a row.
        epsilon: budget per customer [1].
        settings: further `a.b=value` overrides of the scenario `files`.
        out: folder for results; a temporary one by default.

    Raises:
        FondacoError: whatever is wrong, in one line.
    """
    if silo_column not in interactions:
        raise ConfigError(f"{silo_column=} is no column; there are {list(interactions.columns)}")
    folder = Path(out) if out is not None else Path(mkdtemp(prefix="fondaco-"))
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"interactions": folder / "interactions.parquet", "items": folder / "items.parquet"}
    for name, frame in (("interactions", interactions), ("items", items)):
        frame.reset_index(drop=True).to_parquet(paths[name])
    overrides = [f"dataset.{name}='{path}'" for name, path in paths.items()]
    overrides += [f"dataset.silo_column='{silo_column}'", f"privacy.epsilon={epsilon}"]
    return simulate("files", [*overrides, *settings], folder)
