"""The fault matrix as a table: `python tests/e2e/faults/matrix.py [--out FILE] [WORD...]`.

Words choose faults whose name holds one of them; those of real Flower processes: `site_matrix.py`.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[up]) for up in range(3)]

from agent_faults import ABORT, EITHER, OTHER, SAME, Fault, every_fault  # noqa: E402
from agents_world import Plot, Went, World, reference  # noqa: E402
from fault_tools import unmount  # noqa: E402

AGAIN = "clean abort, then finished in a new attempt"


def verdict(went: Went, expect: str) -> str:
    """Return how a run ended, and what is wrong with that."""
    if went.finished and went.reasons and not went.same:
        ended = AGAIN
    elif went.finished:
        ended = SAME if went.same else OTHER
    else:
        ended = ABORT
    wrong = list(went.problems)
    if expect != EITHER and ended not in (expect, AGAIN) and (expect, ended) != (OTHER, SAME):
        wrong.append(f"ended with {ended!r}")
    if expect == EITHER and ended == OTHER:
        wrong.append("ended with another model")
    return f"{ended}: {'; '.join(wrong)}" if wrong else ended


def holds(went: Went, expect: str) -> bool:
    """Whether a run ended as it may."""
    return ":" not in verdict(went, expect)


def run_fault(fault: Fault, folder: Path) -> list[Went]:
    """Run a fault's plots one after another."""
    return [run_plot(plot, folder / str(num)) for num, plot in enumerate(fault.plots())]


def run_plot(plot: Plot, folder: Path) -> Went:
    """Run one plot; disks that it mounted are taken away."""
    world = World(folder, plot)
    try:
        return world.run()
    finally:
        for path in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            place = path.split()[1]
            if place.startswith(f"{folder}/"):
                unmount(Path(place))


def facts(fault: Fault, went: list[Went]) -> dict:
    """Return a fault's line of the table."""
    return {
        "fault": fault.name,
        "repetitions": fault.repetitions,
        "ended": [verdict(each, fault.expect) for each in went],
        "seconds": [round(each.seconds, 1) for each in went],
        "reasons": [reason for each in went for reason in each.reasons],
        "deaths": sum(sum(each.deaths.values()) for each in went),
        "debits": [each.debits for each in went],
        "releases": [each.releases for each in went],
        "holds": all(holds(each, fault.expect) for each in went),
    }


def main() -> int:
    """Run what is asked for; 0 if every fault ended as it may."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    reference()
    failed = 0
    for fault in every_fault():
        if asked.words and not any(word in fault.name for word in asked.words):
            continue
        if fault.needs_root and os.geteuid():
            continue
        folder = Path(tempfile.mkdtemp(prefix="fd-faults-", dir=asked.keep))
        start = time.monotonic()
        line = facts(fault, run_fault(fault, folder))
        line["wall_s"] = round(time.monotonic() - start, 1)
        print(json.dumps(line), flush=True)  # noqa: T201
        if asked.out:
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        failed += not line["holds"]
        if line["holds"] and not asked.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
