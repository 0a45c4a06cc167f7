"""MovieLens 1M, ten silos: quality of everybody's model by budget, against one centre's."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fondaco.server.checkpoint import RoundResult
from fondaco.server.global_model import build_base, choose_head
from fondaco.shared.privacy.clipping import ClippedSum, gram_sum, popularity_sum
from fondaco.shared.privacy.contribution import Histories, bound_contributions
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.records import GlobalModel

from ..library import load_scenario
from ..rankings import pool_training
from ..run import Prepared, parse_epsilons, prepare
from .common import Row, record
from .runs import at_epsilon, federate, parse_seeds, published_quality, spread

TARGETS: Mapping[bool, Mapping[float, float]] = {
    True: {1.0: 0.305, 2.0: 0.340, 4.0: 0.375, 8.0: 0.400},
    False: {1.0: 0.280, 2.0: 0.325, 4.0: 0.366, 8.0: 0.396},
}
"""With item features -> epsilon -> NDCG@100 of `global` that must be reached."""
UNITS = {
    "epsilon": "1",
    "global": "ndcg@100",
    "spread": "ndcg@100",
    "target": "ndcg@100",
    "one_centre": "ndcg@100",
    "difference": "%",
    "difference_error": "%",
    "dp_popularity": "ndcg@100",
}


def pooled_histories(prepared: Prepared) -> Histories:
    """Return the training histories of all silos' customers, as one centre would hold them."""
    train = pool_training(prepared.silos).tocoo()
    return bound_contributions(train.row.astype(np.int64), train.col.astype(np.int64), *train.shape)


def one_centre(prepared: Prepared, histories: Histories, noise_seed: int) -> GlobalModel:
    """Return the model of one trusted party that holds all customers.

    Its noise is one draw of the stddev that the silos' shares add up to.
    """
    plan = prepared.plan

    def released(kind: str, round_num: int, total: ClippedSum) -> RoundResult:
        event = plan.event_for(kind, round_num)
        stddev = round(event.silo_stddev_grid * math.sqrt(len(prepared.silos)))
        noise = NoiseStream.seeded(noise_seed, "one centre", kind)
        return RoundResult(
            kind=kind,
            round_num=round_num,
            total=total.values + noise.gaussian(event.dim, stddev),
            present=tuple(prepared.silo_ids),
            dropped=(),
        )

    popularity = released("popularity", 1, popularity_sum(histories, plan.grid))
    head = choose_head(plan, popularity.total)
    gram = released("gram", 2, gram_sum(histories.restrict(head), plan.grid))
    return build_base(plan, prepared.market.catalogue, popularity, gram)


def measure_budget(prepared: Prepared, histories: Histories, seeds: list[int]) -> Row:
    """Return the means over noise seeds of ten silos and of one centre at one budget."""
    silos = [published_quality(prepared, federate(prepared, s).model) for s in seeds]
    centre = [
        published_quality(prepared, one_centre(prepared, histories, s))["global"] for s in seeds
    ]
    ours = [quality["global"] for quality in silos]
    mean, reference = float(np.mean(ours)), float(np.mean(centre))
    error = math.hypot(spread(ours), spread(centre)) / math.sqrt(len(seeds))
    features = prepared.scenario.dataset.item_features
    epsilon = prepared.scenario.privacy.epsilon
    target = TARGETS[features].get(epsilon, math.nan)
    return {
        "item_features": features,
        "epsilon": epsilon,
        "head": prepared.plan.head,
        "global": mean,
        "spread": spread(ours),
        "target": target,
        "reached": mean >= target,
        "one_centre": reference,
        "difference": 100.0 * (mean / reference - 1.0),
        "difference_error": 100.0 * error / reference,
        "dp_popularity": float(np.mean([quality["dp_popularity"] for quality in silos])),
        "n_seeds": len(seeds),
    }


def main(
    *,
    data_dir: Annotated[str, typer.Option(help="Folder that holds movielens_1m.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    seeds: Annotated[str, typer.Option(help="Noise seeds; the split stays at seed 0.")] = "0,1,2",
    epsilons: Annotated[str, typer.Option(help="Budgets.")] = "1,2,4,8",
) -> None:
    """Measure `global` with and without item features; 95 % of differences lie in 2 errors."""
    noise_seeds = parse_seeds(seeds)
    rows: list[Row] = []
    for features in ("true", "false"):
        settings = [f"dataset.data_dir={data_dir}", f"dataset.item_features={features}"]
        prepared = prepare(load_scenario("movielens-1m", settings))
        histories = pooled_histories(prepared)
        rows += [
            measure_budget(at_epsilon(prepared, epsilon), histories, noise_seeds)
            for epsilon in parse_epsilons(epsilons)
        ]
    record("movielens", rows, out, seed=prepared.scenario.seed, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
