"""Findings, and what a verifier remembers of a ledger while it reads it once from the start."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ..privacy.events import Mechanism
from .formats import ZEROS, Key
from .plans import Plan, Planned

ERROR, WARNING = "error", "warning"
YEAR = timedelta(days=365)
SHOWN = 20
"""Findings of one kind and ledger that are spelled out; the rest are counted."""


class Finding(NamedTuple):
    """Something that does not hold.

    Attributes:
        code: its kind, one word.
        severity: `error` (the ledger does not hold) or `warning` (a person should look).
        ledger: the file.
        seq: number of the record, 0 for the whole ledger.
        text: one line for a person.
    """

    code: str
    severity: str
    ledger: str
    seq: int
    text: str


class Findings:
    """Collects findings; thousands of one kind are as good as twenty and a count."""

    def __init__(self) -> None:
        self._found: list[Finding] = []
        self._seen: Counter[tuple[str, str]] = Counter()

    def add(self, finding: Finding) -> None:
        """Keep a finding, or only count it."""
        key = finding.ledger, finding.code
        self._seen[key] += 1
        if self._seen[key] <= SHOWN:
            self._found.append(finding)

    def extend(self, findings: Iterable[Finding]) -> None:
        """Keep several."""
        for finding in findings:
            self.add(finding)

    def listed(self) -> tuple[Finding, ...]:
        """Return all that were kept, and one line for each kind that had more."""
        more = [
            Finding(code, ERROR, ledger, 0, f"{count - SHOWN:,} more of this kind")
            for (ledger, code), count in self._seen.items()
            if count > SHOWN
        ]
        return (*self._found, *more)


class Paid(NamedTuple):
    """A DEBIT, as later records refer to it."""

    seq: int
    time: datetime
    plan_digest: str
    kind: str
    round_num: int
    attempt: int
    cost: int
    left: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Plan, statistic, round and attempt: paid for at most once."""
        return self.plan_digest, self.kind, self.round_num, self.attempt


class Window:
    """What was paid in the 365 days before the newest debit, at the order of the policy."""

    def __init__(self) -> None:
        self._kept: deque[tuple[datetime, Planned, int]] = deque()
        self._order = ""
        self.total = 0

    def at(self, order: str) -> None:
        """Count at another order from now on, also what was paid already."""
        if order != self._order:
            self._order = order
            self._kept = deque((time, paid, paid.cost(order)) for time, paid, _ in self._kept)
            self.total = sum(cost for _, _, cost in self._kept)

    def pay(self, time: datetime, paid: Planned) -> None:
        """Add a debit."""
        cost = paid.cost(self._order) if self._order else 0
        self._kept.append((time, paid, cost))
        self.total += cost

    def forget(self, now: datetime) -> None:
        """Drop what was paid 365 days ago or earlier."""
        while self._kept and self._kept[0][0] <= now - YEAR:
            self.total -= self._kept.popleft()[2]


class Backing(NamedTuple):
    """Somebody else has seen that the ledger had this hash at this size."""

    witness: str
    size: int
    root: bytes
    source: str


@dataclass
class LedgerState:
    """All that the rules, the report and the comparison of ledgers need to know of a ledger."""

    name: str
    accepted: frozenset[str] = frozenset()
    """Digests of the plans that were handed in; empty: the ledger's own are believed."""
    silo_id: str = ""
    origin: str = ""
    seq: int = 0
    head: bytes = ZEROS
    hashes: dict[int, bytes] = field(default_factory=dict)
    keys: list[tuple[int, Key]] = field(default_factory=list)
    first: datetime | None = None
    newest: datetime | None = None
    counts: Counter[str] = field(default_factory=Counter)
    plans: dict[str, Plan] = field(default_factory=dict)
    approvals: list[tuple[int, datetime, str, int]] = field(default_factory=list)
    current: str = ""
    policy: Mapping[str, Any] | None = None
    window: Window = field(default_factory=Window)
    spent: Counter[str] = field(default_factory=Counter)
    spent_alike: Counter[tuple[str, Mechanism | None]] = field(default_factory=Counter)
    debits: dict[int, Paid] = field(default_factory=dict)
    paid: dict[tuple[str, str, int, int], int] = field(default_factory=dict)
    released: dict[int, int] = field(default_factory=dict)
    blobs: dict[str, int] = field(default_factory=dict)
    failed: dict[tuple[str, str, int, int], int] = field(default_factory=dict)
    masked: dict[tuple[str, str, int, int], str] = field(default_factory=dict)
    """Plan, statistic, round and attempt -> digest of the silos whose masks hid it."""
    participants: dict[str, int] = field(default_factory=dict)
    unmasked: dict[tuple[str, str, int, int], str] = field(default_factory=dict)
    """Likewise -> digest of the silos whose sum this one helped to unmask."""
    last_release: int = 0
    cosigned: list[tuple[int, str, int, bytes]] = field(default_factory=list)
    last_cosigned: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    backings: list[Backing] = field(default_factory=list)
    rngs: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    erasures: list[tuple[datetime, str]] = field(default_factory=list)
    audits: list[tuple[datetime, str, str]] = field(default_factory=list)

    @property
    def key(self) -> Key | None:
        """The key that signs the next record."""
        return self.keys[-1][1] if self.keys else None

    @property
    def plan(self) -> Plan | None:
        """The plan that may be debited now."""
        return self.plans.get(self.current)

    def used_plans(self) -> list[Plan]:
        """Return the plans that were approved or debited, in that order."""
        named = [digest for _, _, digest, approved in self.approvals if approved]
        named += [paid.plan_digest for paid in self.debits.values()]
        return [self.plans[digest] for digest in dict.fromkeys(named) if digest in self.plans]
