"""What a run looks like from outside: one small file, written by the ServerApp, read by anybody.

It holds what the coordinator may know: names of silos, kinds and numbers of rounds, sizes and
times of messages, and reasons that silos gave. No sum, no model, nothing about a customer.
"""

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from fondaco.shared.config import build
from fondaco.shared.errors import ConfigError
from fondaco.shared.files import write_whole
from fondaco.shared.privacy.plan import RunPlan

from .checkpoint import RoundResult
from .watch import Watch

SCHEMA = 1
EVERY_S = 0.5
"""Within a stage the file is written at most this often [s]."""
MOST_REFUSALS = 50
MOST_PHASES = 200
MAX_TEXT = 300

State = Literal["waiting", "running", "finished", "failed"]
ENDED = ("finished", "failed")


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What one silo sent to the coordinator and got from it [bytes]."""

    silo_id: str
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, kw_only=True)
class PhaseSeen:
    """One question to several silos, from the first message to the last answer.

    Attributes:
        seconds: wall time [s].
    """

    stage: str
    asked: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RoundSeen:
    """A finished round.

    Attributes:
        seconds: wall time [s].
        phases: how often silos were asked something in it.
    """

    kind: str
    round_num: int
    seconds: float
    phases: int
    present: tuple[str, ...]
    traffic: tuple[Traffic, ...]


@dataclass(frozen=True, kw_only=True)
class SiloSeen:
    """One silo.

    Attributes:
        present: it answered the last roll call and was not dropped since.
        last_round: the newest that it took part in, 0 if none.
        dropped: why it was left out last, "" if it never was.
        sent: to the coordinator, in all rounds [bytes].
        received: from it [bytes].
    """

    silo_id: str
    present: bool = False
    last_round: int = 0
    dropped: str = ""
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A silo said no, and why."""

    silo_id: str
    reason: str
    time: str


@dataclass(frozen=True, kw_only=True)
class Status:
    """A run, as far as it is known outside of the silos.

    Attributes:
        state: `waiting` for silos, `running`, `finished` or `failed`.
        task: `run` or `preflight`.
        plan: digest.
        dataset: public name of the federation.
        epsilon: what the plan promises at `target_delta`, as text [1].
        planned: rounds of the plan.
        stage: what silos are being asked, and how many of those asked have answered.
        phases: how often silos were asked something so far.
        timed: the last MOST_PHASES of them.
        refused: refusals in all; the last of them are `refusals`.
        started: ISO, UTC.
        updated: when the file was written.
        resumed: how often the run was taken up again.
        error: why it failed, "" if it did not.
    """

    schema: int = SCHEMA
    state: State = "waiting"
    task: str = "run"
    plan: str
    dataset: str
    epsilon: str
    target_delta: str
    expires: str
    planned: int
    rounds: tuple[RoundSeen, ...] = ()
    stage: str = ""
    heard: int = 0
    asked: int = 0
    phases: int = 0
    timed: tuple[PhaseSeen, ...] = ()
    silos: tuple[SiloSeen, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    refused: int = 0
    started: str = ""
    updated: str = ""
    resumed: int = 0
    error: str = ""

    @property
    def seconds(self) -> dict[str, float]:
        """Kind of release -> wall time of its rounds [s]."""
        spent: dict[str, float] = {}
        for done in self.rounds:
            spent[done.kind] = spent.get(done.kind, 0.0) + done.seconds
        return spent


class StatusFile(Watch):
    """Tells the file at `path` how a run of `plan` goes; every method is cheap."""

    def __init__(self, path: Path, plan: RunPlan) -> None:
        self._path = path
        self._silos = {silo_id: SiloSeen(silo_id=silo_id) for silo_id in plan.roster}
        self._rounds: dict[int, RoundSeen] = {}
        self._traffic: dict[str, Traffic] = {}
        self._phases_before = 0
        self._written = 0.0
        self._asked_at = time.monotonic()
        self._now = Status(
            plan=plan.digest,
            dataset=plan.public.get("dataset", ""),
            epsilon=plan.target_epsilon,
            target_delta=plan.target_delta,
            expires=plan.expires,
            planned=len(plan.releases),
        )

    def begin(self, task: str = "run") -> None:
        """Say that silos are waited for; what is known of the same run's rounds stays."""
        self._set(state="waiting", task=task, started=_now(), error="")
        known = self._known(task)
        if known is not None:
            self._rounds = {done.round_num: done for done in known.rounds}
            self._silos |= {s.silo_id: replace(s, present=False) for s in known.silos}
            self._phases_before = known.phases
            self._set(
                started=known.started,
                resumed=known.resumed + 1,
                phases=known.phases,
                timed=known.timed,
                refusals=known.refusals,
                refused=known.refused,
            )
        self._write()

    def present(self, silo_ids: Iterable[str]) -> None:
        """Say who answered the roll call; from now on the run is under way."""
        here = set(silo_ids)
        for silo_id in [*self._silos, *sorted(here - set(self._silos))]:
            self._change(silo_id, present=silo_id in here)
        self._set(state="running")
        self._phases_before = self._now.phases  # a roll call belongs to no round
        self._write()

    def dropped(self, silo_id: str, reason: str) -> None:
        """Say why a silo was left out, of the roll call or of a round.

        A node that has not shown whose it is becomes no silo: what it said is kept as a refusal.
        """
        if silo_id in self._silos:
            self._change(silo_id, present=False, dropped=_short(reason))
        elif (silo_id, _short(reason)) not in [(r.silo_id, r.reason) for r in self._now.refusals]:
            self.refused(silo_id, reason)

    def stage(self, stage: str, heard: int, asked: int) -> None:
        """Take in progress, as `rounds.Progress` reports it; nobody heard begins a phase."""
        turns = heard in (0, asked) or stage != self._now.stage
        phases = self._now.phases + (heard == 0 < asked)
        if heard == 0:
            self._asked_at = time.monotonic()
        elif heard == asked:
            took = round(time.monotonic() - self._asked_at, 3)
            done = PhaseSeen(stage=_short(stage), asked=asked, seconds=took)
            self._set(timed=(*self._now.timed, done)[-MOST_PHASES:])
        self._set(stage=_short(stage), heard=heard, asked=asked, phases=phases)
        if turns or time.monotonic() - self._written > EVERY_S:
            self._write()

    def traffic(self, silo_id: str, sent: int, received: int) -> None:
        """Add what a silo sent and received in the round under way [bytes]."""
        before = self._traffic.get(silo_id, Traffic(silo_id=silo_id))
        self._traffic[silo_id] = replace(
            before, sent=before.sent + sent, received=before.received + received
        )
        known = self._silos.get(silo_id, SiloSeen(silo_id=silo_id))
        self._change(silo_id, sent=known.sent + sent, received=known.received + received)

    def refused(self, silo_id: str, reason: str) -> None:
        """Take in a silo's refusal, in the words that it sent."""
        refusal = Refusal(silo_id=_short(silo_id), reason=_short(reason), time=_now())
        self._set(
            refusals=(*self._now.refusals, refusal)[-MOST_REFUSALS:], refused=self._now.refused + 1
        )

    def round_done(self, result: RoundResult, seconds: float) -> None:
        """Close a round; one that was known before keeps its first numbers."""
        phases, self._phases_before = self._now.phases - self._phases_before, self._now.phases
        traffic, self._traffic = tuple(self._traffic.values()), {}
        seen = RoundSeen(
            kind=result.kind,
            round_num=result.round_num,
            seconds=round(seconds, 3),
            phases=phases,
            present=result.present,
            traffic=tuple(sorted(traffic, key=lambda t: t.silo_id)),
        )
        self._rounds.setdefault(result.round_num, seen)
        for silo_id in result.present:
            self._change(silo_id, present=True, last_round=result.round_num)
        for drop in result.dropped:
            self.dropped(drop.silo_id, drop.reason)
        self._write()

    def finish(self, state: State, error: str = "") -> None:
        """Say how the run ended."""
        self._set(state=state, error=_short(error), stage="", heard=0, asked=0)
        self._write()

    def _known(self, task: str) -> Status | None:
        """Return what the file says of the same run of the same plan, None if nothing."""
        try:
            known = read_status(self._path)
        except ConfigError:
            return None  # never written, or damaged: it is a view, and is made anew
        return known if (known.plan, known.task) == (self._now.plan, task) else None

    def _change(self, silo_id: str, **changes: object) -> None:
        known = self._silos.get(silo_id, SiloSeen(silo_id=silo_id))
        self._silos[silo_id] = replace(known, **changes)  # type: ignore[arg-type]

    def _set(self, **changes: object) -> None:
        self._now = replace(self._now, **changes)  # type: ignore[arg-type]

    def _write(self) -> None:
        rounds = tuple(self._rounds[num] for num in sorted(self._rounds))
        silos = tuple(self._silos.values())
        self._set(rounds=rounds, silos=silos, updated=_now())
        with suppress(OSError):  # a view: a full disk must not end a run for it
            write_whole(self._path, json.dumps(asdict(self._now)))
        self._written = time.monotonic()


def read_status(path: Path) -> Status:
    """Return what a run's file says.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: this plan was not run here yet")
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(body, Mapping) or body.get("schema") != SCHEMA:
        raise ConfigError(f"{path} is no status of schema {SCHEMA}")
    return build(Status, body, f"{path.name}: ")


def _short(text: str) -> str:
    """Return what silos or Flower say, of a length and in characters fit for a screen."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= MAX_TEXT else f"{plain[: MAX_TEXT - 3]}..."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
