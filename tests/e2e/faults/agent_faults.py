"""Faults at a silo and at a coordinator, three repetitions each, most of them in one run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agents_world import Act, Ask, Meddle, Plot, World
from fault_tools import mount, notes, say
from kill_points import COORDINATOR_LABELS, LABELS, MASKED_LABELS
from message_faults import (
    SILOS,
    alone,
    crossed,
    duplicated,
    flooded,
    half_open,
    hung_up,
    replayed,
    written_down,
)

from fondaco.client.boundary.link import AgentAwayError, AgentError
from fondaco.client.masking import MaskedSums
from fondaco.shared.parts import Parts

SECONDS = tuple(f"{silo}+" for silo in SILOS)
SAME, ABORT, OTHER, EITHER = "same model", "clean abort", "finished", "same model or clean abort"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        plots: runs; together they are its repetitions.
        expect: how each must end.
        repetitions: of all plots together.
        needs_root: for its disks.
    """

    name: str
    plots: Callable[[], Sequence[Plot]]
    expect: str = SAME
    repetitions: int = 3
    needs_root: bool = False


# kill -9 inside of an agent


def die_at(owner: object, name: str, when: str, nth: int) -> Act:
    """Return what makes the nth call of a function the last thing that a process does."""

    def arm() -> None:
        real, calls = getattr(owner, name), [0]

        def wrapped(*args: object, **options: object) -> object:
            calls[0] += 1
            if (when, calls[0]) == ("before", nth):
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **options)
            if (when, calls[0]) == ("after", nth):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, wrapped)

    return arm


def killed_agents(label: tuple[object, str, str], *nths: int) -> Sequence[Plot]:
    """Every silo's agent dies once in one run, each at another call."""
    acts = {silo: [die_at(*label, nth)] for silo, nth in zip(SILOS, nths, strict=True)}
    return [Plot(in_agent=acts, deaths=3)]


def killed_coordinator(label: tuple[object, str, str], *nths: int) -> Sequence[Plot]:
    """The coordinator dies at three of its starts."""
    return [Plot(in_coordinator=[die_at(*label, nth) for nth in nths], deaths=3)]


def of_agents() -> Iterator[Fault]:
    """Kills of an agent, by the point."""
    step = "kill -9 of the agent {}"
    for name in (
        "before the debit",
        "inside of a transaction",
        "after the debit",
        "before the computation",
        "after the computation",
        "before the bytes are written",
        "after the bytes are written",
        "before the release is recorded",
        "after the release is recorded",
        "before the reply",
        "after the cosignature is recorded",
        "when the model arrives",
    ):
        nths = (1, 1, 1) if name == "when the model arrives" else (1, 2, 1)
        plots = partial(killed_agents, LABELS[name], *nths)
        yield Fault(name=step.format(name), plots=plots)
    for name in (
        "after a session is kept",
        "before a key is overwritten",
        "after the masks are on",
        "before the unmasking is recorded",
        "after the unmasking is recorded",
        "before a release is vouched for",
    ):
        plots = partial(killed_agents, MASKED_LABELS[name], 1, 2, 1)
        yield Fault(name=step.format(name), plots=plots)
    for num, word in enumerate(("hello", "share", "confirm", "unmask"), start=1):
        for when, text in (("before", "at"), ("after", "after the answer to")):
            label = (MaskedSums, "answer", when)
            plots = partial(killed_agents, label, num, num + 4, num)
            yield Fault(name=step.format(f"{text} {word}"), plots=plots)


def of_coordinators() -> Iterator[Fault]:
    """Kills of the coordinator, by the point."""
    labels = {**COORDINATOR_LABELS, **MASKED_LABELS}
    for name, nths in {
        "before heads are kept": (1, 3, 4),
        "after heads are kept": (1, 3, 4),
        "before a round is kept": (1, 1, 2),
        "before the model is kept": (1, 1, 1),
        "before the journal is kept": (2, 4, 3),
        "after the journal is kept": (2, 3, 2),
        "before the total is kept": (1, 1, 1),
        "after the total is kept": (1, 1, 1),
    }.items():
        plots = partial(killed_coordinator, labels[name], *nths)
        yield Fault(name=f"kill -9 of the coordinator {name}", plots=plots)
    twice = Plot(in_coordinator=[die_at(*labels["after a round is kept"], 1)] * 2, deaths=2)
    yield Fault(
        name="kill -9 of the coordinator after a round is kept",
        plots=_times(2, twice),
        repetitions=4,
    )


# messages


def shuffled(seed: int, world: World) -> None:
    """Deliver the messages of another run to a fresh agent, in another order, twice over."""
    letters = notes(world.folder.parent / "letters")
    dice = random.Random(seed)  # noqa: S311  (an order, no secret)
    order = dice.sample(letters * 2, len(letters) * 2) if seed else letters[::-1]
    for letter in order:
        try:
            world.ask(SILOS[0], letter["action"], Parts(*map(bytes.fromhex, letter["parts"])))
        except AgentError as error:
            say(world.note("meddled"), shuffled=letter["action"], refused=str(error))


def out_of_order() -> Sequence[Plot]:
    """One run whose messages are kept, and three in which they come in another order."""
    return [
        Plot(meddle=written_down),
        *(Plot(coordinate=partial(shuffled, seed), audited=SILOS[:1]) for seed in range(3)),
    ]


# the socket


def mounted(*names: str) -> Callable[[World], None]:
    """Return what puts small disks in place of folders of the world."""

    def prepare(world: World) -> None:
        for name in names:
            mount(world.folder / name, "4m")

    return prepare


def fill(folder: Path) -> None:
    """Leave no room at all."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def remount(folder: Path, how: str) -> None:
    """Make a disk read-only, or writable again."""
    command = ["mount", "-o", f"remount,{how}", str(folder)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603


def once(world: World, name: str) -> bool:
    """Whether this is the first time that something is asked for, in any process."""
    path = world.note(f"once-{name}")
    if path.exists():
        return False
    path.touch()
    return True


def spoilt_disk(folder: str, how: str, at: str) -> Meddle:
    """Fill a disk, or take its writing away, while one message is answered."""

    def meddle(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
        if silo != SILOS[1] or action != at or not once(world, f"{at}-{how}"):
            return on(silo, action, parts)
        disk = world.folder / folder
        if how == "full":
            fill(disk)
        else:
            remount(disk, "ro")
        try:
            return on(silo, action, parts)
        except (AgentError, AgentAwayError) as error:
            say(world.note("meddled"), disk=folder, refused=str(error))
            raise
        finally:
            if how == "full":
                (disk / "filler").unlink()
            else:
                remount(disk, "rw")

    return meddle


def silo_disks(how: str) -> Sequence[Plot]:
    """The disk of the ledger, of what is sent, and of the masked sum under way."""
    return [
        Plot(prepare=mounted(name), meddle=spoilt_disk(name, how, at), runs=2, n_silos=3)
        for name, at in (
            ("silos/ledgers", "release"),
            ("silos/outbox", "release"),
            ("silos/sessions", "share"),
        )
    ]


def full_coordinator(folder: str) -> Meddle:
    """Fill the coordinator's disk as the last answers of a sum come in."""

    def meddle(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
        if silo == SILOS[2] and action == "unmask" and once(world, "full"):
            fill(world.folder / "coordinator" / folder)
        return on(silo, action, parts)

    return meddle


def make_room(folder: str, world: World) -> None:
    """Remove what filled it."""
    (world.folder / "coordinator" / folder / "filler").unlink()


def coordinator_disks() -> Sequence[Plot]:
    """The disk of the checkpoints, of the journals, and of what is known of ledgers."""
    return [
        Plot(
            prepare=mounted(f"coordinator/{name}"),
            meddle=full_coordinator(name),
            between=partial(make_room, name),
            runs=2,
        )
        for name in ("checkpoints", "journals", "witness")
    ]


def rolled_back(at: str) -> Meddle:
    """Put a ledger back as it was before its first release, ahead of a later message."""

    def meddle(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
        if silo != SILOS[0]:
            return on(silo, action, parts)
        path, old = world.workspace.folder / "ledgers" / f"{silo}.db", world.note("old-ledger")
        if action == "hello" and once(world, "copied"):
            old.write_bytes(path.read_bytes())
        elif action == at and old.exists() and once(world, "rolled"):
            path.write_bytes(old.read_bytes())
        return on(silo, action, parts)

    return meddle


def lost_bytes(world: World, on: Ask, silo: str, action: str, parts: Parts) -> Parts:
    """Lose an answer on the way, and what was kept of it."""
    said = on(silo, action, parts)
    if silo == SILOS[0] and action == "release" and once(world, "lost"):
        for path in (world.workspace.folder / "outbox" / silo).glob("*.bin"):
            path.unlink()
        raise AgentAwayError("the answer was lost")
    return said


def clock(seconds: float) -> Act:
    """Return what puts a process's clock forward [s]."""

    def arm() -> None:
        real = time.time
        time.time = lambda: real() + seconds

    return arm


def clocks() -> Sequence[Plot]:
    """One silo a day ahead, one a day behind, two apart."""
    ahead, behind = clock(86_400.0), clock(-86_400.0)
    return [
        Plot(always={SILOS[0]: ahead}),
        Plot(always={SILOS[1]: behind}),
        Plot(always={SILOS[0]: ahead, SILOS[2]: behind}),
    ]


def dead_for_good(num: int, at: str, **more: object) -> Plot:
    """A silo's agent dies at its answer to a step, and nobody starts it again."""
    step = {"hello": 1, "share": 2, "confirm": 3, "unmask": 4}
    if at == "release":
        act = die_at(*LABELS["after the debit"], 1)
    else:
        act = die_at(MaskedSums, "answer", "before", step[at])
    silo = SILOS[num]
    settings = {"in_agent": {silo: [act]}, "stays_dead": (silo,), "patience_s": 1.0, "deaths": 1}
    return Plot(**settings, **more)


def chaotic() -> Sequence[Plot]:
    """Whatever lives is killed at random, five times, at any point."""
    return [Plot(chaos=seed, deaths=5) for seed in range(3)]


def of_all_else() -> Iterator[Fault]:
    """Messages, sockets, disks, clocks."""
    three = partial(_times, 3)
    yield Fault(name="every message three times", plots=three(Plot(meddle=duplicated)))
    yield Fault(name="all old messages again after each", plots=three(Plot(meddle=replayed)))
    yield Fault(
        name="every message as every other step", plots=three(Plot(meddle=crossed)), expect=EITHER
    )
    yield Fault(name="messages of a run in another order", plots=out_of_order, expect=OTHER)
    yield Fault(name="garbage before every message", plots=three(Plot(meddle=flooded)))
    yield Fault(
        name="half-open connection", plots=partial(list, [Plot(meddle=half_open)]), repetitions=6
    )
    yield Fault(name="courier hangs up before every answer", plots=three(Plot(meddle=hung_up)))
    yield Fault(
        name="two agents on one home",
        plots=three(Plot(meddle=alone, twice=SILOS, stays_dead=SECONDS)),
    )
    yield Fault(name="full disk at a silo", plots=partial(silo_disks, "full"), needs_root=True)
    yield Fault(name="home turns read-only", plots=partial(silo_disks, "ro"), needs_root=True)
    yield Fault(name="full disk at the coordinator", plots=coordinator_disks, needs_root=True)
    yield Fault(
        name="ledger put back from a backup",
        plots=lambda: [
            Plot(meddle=rolled_back(at), runs=2) for at in ("hello", "unmask", "publish")
        ],
        expect=EITHER,
    )
    yield Fault(
        name="answer and its kept bytes lost",
        plots=three(Plot(meddle=lost_bytes, runs=2)),
        expect=ABORT,
    )
    yield Fault(name="clock a day off", plots=clocks, expect=EITHER)
    yield Fault(
        name="silo gone for good, no quorum",
        plots=lambda: [dead_for_good(n, at) for n, at in enumerate(("share", "release", "unmask"))],
        expect=EITHER,
    )
    four = {"n_silos": 4, "settings": ("silos.min_present=3",)}
    yield Fault(
        name="silo gone for good, quorum of three of four",
        plots=lambda: [
            dead_for_good(n, at, **four) for n, at in enumerate(("share", "release", "unmask"))
        ],
        expect=OTHER,
    )
    yield Fault(name="kills at random", plots=chaotic)


def _times(n: int, plot: Plot) -> Callable[[], Sequence[Plot]]:
    return lambda: [replace(plot) for _ in range(n)]


def every_fault() -> list[Fault]:
    """Return all of them."""
    return [*of_agents(), *of_coordinators(), *of_all_else()]


if sys.platform != "linux":
    raise ImportError("these faults need Linux")
