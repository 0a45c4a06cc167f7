"""A thousand silos in one process: wall time of every stage and peak memory."""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from ..library import load_scenario
from ..run import prepare, simulate
from .common import Row, record

TARGET_S = 180.0
TARGET_BYTES = 4 * 10**9


def measure_scale(seed: int, settings: tuple[str, ...] = ()) -> list[Row]:
    """Return what a run of `synthetic-1000` took, stage by stage, in this fresh process."""
    start, cpu_start = time.perf_counter(), time.process_time()
    scenario = load_scenario("synthetic-1000", [f"seed={seed}", *settings])
    prepared = prepare(scenario)
    with tempfile.TemporaryDirectory() as folder:
        result = simulate(prepared, Path(folder)).result
    total, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    sizes, quality = result["dataset"], result["quality"]
    counts = {name: sizes[name] for name in ("n_silos", "n_customers", "n_items")}
    rows: list[Row] = [_row(name, value) for name, value in counts.items()]
    rows.append(_row("head of the Gram", prepared.plan.head))
    rows += [_row(f"{stage} [s]", seconds) for stage, seconds in result["timings_s"].items()]
    rows.append(_row("wall time [s]", total, TARGET_S))
    rows.append(_row("processor time [s]", cpu))
    rows.append(_row("peak memory [bytes]", result["peak_rss_bytes"], TARGET_BYTES))
    headline = result["headline"]
    rows += [_row(f"{s} [{headline}]", quality[s][headline]["mean"]) for s in quality]
    return rows


def _row(what: str, value: float, target: float | None = None) -> Row:
    reached = "" if target is None else ("yes" if value <= target else "no")
    return {"what": what, "value": value, "target": target or "", "reached": reached}


def main(
    *,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    seed: Annotated[int, typer.Option(help="Of the marketplace and the noise.")] = 0,
    setting: Annotated[list[str] | None, typer.Option("--set", help="a.b=value")] = None,
) -> None:
    """Run 1,000 silos, 100,000 customers and 10,000 items once."""
    record("scale", measure_scale(seed, tuple(setting or ())), out, seed=seed, units={})


if __name__ == "__main__":
    typer.run(main)
