"""Faults of real Flower processes, as a table: `python tests/e2e/faults/site_matrix.py REPETITION`.

One run of some 15 minutes, as root, in which one fault after another strikes.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[up]) for up in range(3)]

from agents_world import reference, scenario  # noqa: E402
from fault_tools import leaks, wrong_with  # noqa: E402
from site_faults import (  # noqa: E402
    Blow,
    Storm,
    back,
    cut,
    cut_off,
    down,
    frozen,
    given_again,
    joined,
    killed,
    left,
    mended,
    restarted,
    start_late,
    thawed,
)

from fondaco.client.owner import Owner  # noqa: E402
from fondaco.server.status import read_status  # noqa: E402
from fondaco.simulation.loopback import Site, _audit, site  # noqa: E402

LONG_S, SHORT_S = 240, 90


def blows(first: int) -> list[Blow]:
    """Return the faults in order; `first` says which silo comes first."""
    one, two, three = ((first + num) % 3 for num in range(3))

    def hasty(storm: Storm) -> bool:
        storm.set_deadline(SHORT_S)
        return killed("serverapp")(storm)

    def patient(num: int) -> Callable[[Storm], None]:
        def after(storm: Storm) -> None:
            back(num)(storm)
            storm.set_deadline(LONG_S)

        return after

    return [
        Blow(fault="late joiner", stages=("waiting",), strike=joined(three)),
        Blow(fault="SuperNode kill -9", strike=killed("supernode", one)),
        Blow(fault="ClientApp kill -9", strike=killed("clientapp", two)),
        Blow(fault="`fondaco-client run` kill -9 and restart", strike=restarted(three)),
        Blow(fault="SuperLink kill -9, back at once", strike=killed("superlink")),
        Blow(fault="agent kill -9 while Flower waits", strike=killed("agent", one)),
        Blow(fault="ServerApp kill -9", strike=hasty),
        Blow(
            fault="slow silo past the deadline",
            stages=("unmask", "confirm", "popularity", "gram"),
            strike=frozen(two),
            aborts=True,
            after=thawed(two),
        ),
        Blow(
            fault="network cut past the deadline",
            stages=("gram", "confirm"),
            strike=cut_off(three),
            aborts=True,
            after=mended(three),
        ),
        Blow(
            fault="silo leaves, no quorum",
            stages=("gram", "confirm", "unmask"),
            strike=left(one),
            aborts=True,
            after=patient(one),
        ),
        Blow(
            fault="coordinator's SuperExec kill -9",
            stages=("roll call",),
            strike=killed("superexec"),
        ),
        Blow(fault="network cut 20 s and back", strike=cut(two, 20.0)),
        Blow(fault="`fondaco-server run` kill -9 and again", strike=given_again),
        Blow(fault="silo's SuperExec kill -9", strike=killed("superexec", three)),
        Blow(fault="SuperLink down 75 s", strike=down(75.0)),
    ]


def quick_blows() -> list[Blow]:
    """Return those after which nobody waits for a minute."""
    return [
        Blow(fault="agent kill -9 while Flower waits", strike=killed("agent", 0)),
        Blow(fault="silo's SuperExec kill -9", strike=killed("superexec", 1)),
        Blow(fault="SuperLink kill -9, back at once", strike=killed("superlink")),
        Blow(fault="agent kill -9 while Flower waits", strike=killed("agent", 2)),
    ]


def weather(
    coming: Sequence[Blow],
    out: Path,
    *,
    apart: bool,
    late: int | None = None,
    tell: Callable[[str], None] = print,
) -> dict:
    """Run one site through faults; return what is left of it.

    Args:
        coming: the faults.
        out: a new folder.
        apart: every silo on a host of its own (root).
        late: which silo is not there at the beginning.
        tell: told of everything that happens.
    """
    prepared = scenario(3, f"engine.deadline_s={LONG_S}")
    with site(prepared, out, apart=apart) as made:
        start_late(made, *([] if late is None else [late]))
        tell("started")
        storm = Storm(made, tell)
        finished = storm.go(coming)
        model = storm.status_path.parent / "model.safetensors"
        same = finished and model.read_bytes() == reference(3, f"engine.deadline_s={LONG_S}")
        status = read_status(storm.status_path)
        return {
            "finished": finished,
            "same": same,
            "problems": _problems(made),
            "struck": [asdict(each) for each in storm.struck],
            "gave_up": storm.gave_up,
            "slowest": storm.slowest,
            "resumed": status.resumed,
            "rounds": [(r.kind, r.phases, r.seconds) for r in status.rounds],
        }


def _problems(made: Site) -> list[str]:
    """Return every promise that does not hold."""
    problems = []
    for silo in made.prepared.silo_ids:
        if code := _audit(made, silo):
            problems.append(f"{silo}: fondaco-audit verify says {code}")
        with Owner.open(made.home(silo)).ledger() as ledger:
            problems += wrong_with(ledger.records(), made.prepared.plan)
    said = made.out.parent.glob("cli.*"), made.out.glob("logs/*"), made.coordinator.rglob("*.log")
    return problems + leaks(*said, made.coordinator.glob("runs/*/*.json"))


def main(first: int) -> int:
    """Run the storm; print one line per fault and what is left."""
    start = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - start:7.1f} {text}", flush=True)  # noqa: T201

    out = Path(tempfile.mkdtemp(prefix="fd-site-")) / "s"
    facts = weather(blows(first), out, apart=True, late=(first + 2) % 3, tell=tell)
    print(json.dumps(facts), flush=True)  # noqa: T201
    return 0 if facts["finished"] and not facts["problems"] else 1


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1])))
