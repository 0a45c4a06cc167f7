"""Who gains: MovieLens 1M in few large to many small silos, at one budget."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fondaco.shared.metrics import bootstrap_means

from ..library import load_scenario
from ..run import parse_epsilons, prepare
from .common import Row, record
from .runs import at_epsilon, parse_seeds, spread
from .shops import BOOTSTRAP, measure_seeds

COUNTS = (3, 5, 10, 20, 50, 100, 200, 300)
"""Silos: about 2,000 to 20 customers each."""
MEASURED = 50
"""Silos whose customers are looked at, drawn with the seed where there are more."""
UNITS = {
    "epsilon": "1",
    "customers": "per silo",
    "own_cf": "ndcg@100",
    "silo_alone": "ndcg@100",
    "global": "ndcg@100",
    "fused": "ndcg@100",
    "spread": "ndcg@100",
    "gain": "%",
    "low": "%",
    "high": "%",
}
SYSTEMS = ("own_cf", "silo_alone", "global", "fused")


def measure_count(n_silos: int, epsilon: float, seeds: Sequence[int], data_dir: str) -> Row:
    """Return means over customers and noise seeds with all of `n_silos` taking part."""
    settings = (
        f"dataset.data_dir={data_dir}",
        "baselines=[]",
        f"silos.count={n_silos}",
        f"silos.min_present={n_silos}",
        f"silos.t_collude={max(1, n_silos // 10)}",
        f"evaluation.silos={MEASURED}",
    )
    prepared = at_epsilon(prepare(load_scenario("movielens-1m", settings)), epsilon)
    values = measure_seeds(prepared, seeds)
    alone = values["silo_alone"].mean(axis=0)
    above = (values["fused"].mean(axis=0) - alone)[:, None]
    rng = np.random.default_rng(prepared.scenario.seed)
    gain, low, high = (100.0 * bootstrap_means(above, rng, BOOTSTRAP)[0] / alone.mean()).tolist()
    return {
        "silos": n_silos,
        "customers": float(np.mean([silo.n_users for silo in prepared.silos])),
        "epsilon": epsilon,
        **{system: float(values[system].mean()) for system in SYSTEMS},
        "spread": spread(values["fused"].mean(axis=1)),
        "gain": gain,
        "low": low,
        "high": high,
        "n_test": len(alone),
        "n_seeds": len(seeds),
    }


def main(
    *,
    data_dir: Annotated[str, typer.Option(help="Folder that holds movielens_1m.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    seeds: Annotated[str, typer.Option(help="Noise seeds; the split stays at seed 0.")] = "0,1",
    epsilons: Annotated[str, typer.Option(help="Budgets.")] = "4",
) -> None:
    """Sweep over silo sizes; `gain` is `fused` over `silo_alone` with its 95 % interval."""
    rows = [
        measure_count(count, epsilon, parse_seeds(seeds), data_dir)
        for epsilon in parse_epsilons(epsilons)
        for count in COUNTS
    ]
    record("silo_sizes", rows, out, seed=0, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
