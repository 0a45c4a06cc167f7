"""Ledgers -> findings: each on its own, then against one another and against what others saw."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from .debits import DEBIT_RULES
from .formats import Note, unreadable
from .masks import split_rounds
from .plans import Plan
from .promises import plan_problems
from .reading import Record, read_ledger, read_notes, witness_files
from .rules import CHAIN_RULES, RULES, Problem, Rule
from .state import ERROR, WARNING, Backing, Finding, Findings, LedgerState
from .taking import seq_of, take
from .witnesses import (
    Copy,
    check_absent,
    check_copy,
    check_head,
    check_note,
    copy_problems,
    cosign,
    note_backings,
    read_copy,
)

Tell = Callable[[str, int], None]
"""Hears the ledger's name and how many of its records have been read."""

ALL_RULES: Mapping[str, tuple[Rule, ...]] = {
    **RULES,
    "DEBIT": DEBIT_RULES,
    "COSIGN": (cosign,),
}
_WARNINGS = {
    *("reused-blob", "reused-masks", "split-round", "later-plan"),
    *("cosigned-later", "absent-ledger", "torn-copy"),
}
_EVERY = 500
_BEYOND = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)
"""What numbers and shapes that no rule foresaw may raise: such a ledger cannot be judged."""


@dataclass(frozen=True)
class Verification:
    """What was read, what does not hold, and what could not be looked at."""

    ledgers: tuple[LedgerState, ...]
    plans: tuple[Plan, ...]
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing was found that breaks a promise."""
        return not any(finding.severity == ERROR for finding in self.findings)


def verify(
    ledgers: Sequence[Path], plans: Sequence[Plan], witnesses: Sequence[Path], tell: Tell
) -> Verification:
    """Check ledgers by every rule.

    Args:
        ledgers: exports or data bases, at most one per silo but copies are compared.
        plans: what the owners are known to have agreed to; empty: what the ledgers say.
        witnesses: files or folders of notes and of copies that others keep.
        tell: hears of progress.

    Raises:
        LedgerError: a file cannot be read.
    """
    findings = Findings()
    accepted = frozenset(plan.digest for plan in plans)
    names = _short_names(ledgers)
    for plan in {plan.digest: plan for plan in plans}.values():
        findings.extend(_terms(plan))
    states = []
    for path in ledgers:
        state = LedgerState(name=names[path], accepted=accepted)
        state.plans.update({plan.digest: plan for plan in plans})
        findings.extend(read_through(read_ledger(path), state, tell))
        findings.extend(_at_the_end(state))
        states.append(state)
    findings.extend(_between(states))
    note_files, copies = witness_files(list(witnesses))
    notes = [(path.name, note) for path in note_files for note in read_notes(path)]
    findings.extend(_against_notes(states, notes, plans))
    findings.extend(_against_copies(states, [read_copy(path) for path in copies]))
    remarks = tuple(_remarks(states, plans, bool(notes or copies)))
    return Verification(tuple(states), tuple(plans), findings.listed(), remarks)


def _terms(plan: Plan) -> Iterator[Finding]:
    """Hold a plan that was handed in to what it promises, whether or not a ledger has it."""
    name = f"plan {plan.digest[:19]}"
    try:
        yield from _as_findings((("plan-terms", text) for text in plan_problems(plan)), name)
    except _BEYOND as error:
        raise unreadable(name, "its terms", f"{type(error).__name__}: {error}") from None


def _short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return file names, with their folders where two are called alike."""
    twice = len({path.name for path in paths}) < len(set(paths))
    return {path: "/".join(path.parts[-2:]) if twice else path.name for path in paths}


def read_through(records: Iterable[Record], state: LedgerState, tell: Tell) -> Iterator[Finding]:
    """Judge records one by one and let `state` take them in."""
    number = 0
    for number, record in enumerate(records, start=1):
        try:
            problems = list(judge(record, state))
            take(record, state, sound=not any(code == "fields" for code, _ in problems))
        except _BEYOND as error:
            place = f"record {record.place}"
            raise unreadable(state.name, place, f"{type(error).__name__}: {error}") from None
        yield from _as_findings(problems, state.name, seq_of(record))
        if number % _EVERY == 0:
            tell(state.name, number)
    tell(state.name, number)


def judge(record: Record, state: LedgerState) -> Iterator[Problem]:
    """Yield what is wrong with a record after those that `state` has taken in."""
    well_formed = True
    for rule in CHAIN_RULES:
        for code, text in rule(record, state):
            well_formed = well_formed and code != "fields"
            yield code, text
    if well_formed:
        for rule in ALL_RULES.get(record.body["type"], ()):
            yield from rule(record, state)


def _as_findings(problems: Iterable[Problem], ledger: str, seq: int = 0) -> Iterator[Finding]:
    for code, text in problems:
        yield Finding(code, WARNING if code in _WARNINGS else ERROR, ledger, seq, text)


def _at_the_end(state: LedgerState) -> Iterator[Finding]:
    """Judge what only the whole ledger shows."""
    problems: list[Problem] = []
    for digest in sorted(state.accepted):
        if not any(plan == digest for _, _, plan, _ in state.approvals):
            problems.append(("plan-missing", f"its owner never approved {digest[:19]}"))
    yield from _as_findings(problems, state.name)


def _between(states: Sequence[LedgerState]) -> Iterator[Finding]:
    """Hold ledgers against each other: copies of one, plans, and what each has co-signed."""
    for one, other in combinations(states, 2):
        if one.silo_id == other.silo_id:
            yield from _as_findings(_copies(one, other), min(one, other, key=lambda s: s.seq).name)
        else:
            yield from _as_findings(_agreement(one, other), other.name)
    for witness in states:
        for state in states:
            if witness.silo_id != state.silo_id:
                yield from _as_findings(_cosigned(witness, state), state.name)


def _copies(one: LedgerState, other: LedgerState) -> Iterator[Problem]:
    common = min(one.seq, other.seq)
    differs = [s for s in range(1, common + 1) if one.hashes.get(s) != other.hashes.get(s)]
    if differs:
        yield "forked", f"{one.name} and {other.name} differ from record {differs[0]} on"
    elif one.seq != other.seq:
        longer = max(one, other, key=lambda s: s.seq)
        hint = "if this is only an older copy, hand it in with --witness"
        yield "rolled-back", f"{longer.name} has {longer.seq} records, here are {common}; {hint}"


def _agreement(one: LedgerState, other: LedgerState) -> Iterator[Problem]:
    mine, theirs = ({plan.digest for plan in state.used_plans()} for state in (one, other))
    if mine and theirs and not mine & theirs:
        yield "other-plan", f"no plan of it was approved in {one.name} as well"
    elif one.current and other.current and one.current != other.current:
        yield "later-plan", f"its latest plan is not the one of {one.name}"
    yield from split_rounds(one, other)


def _cosigned(witness: LedgerState, state: LedgerState) -> Iterator[Problem]:
    """Compare what one silo has co-signed with the ledger it signed for."""
    for seq, origin, size, root in witness.cosigned:
        if origin != state.origin:
            continue
        source = f"{witness.silo_id} (its record {seq})"
        yield from check_head(state, size, root, source)
        state.backings.append(Backing(witness.silo_id, size, root, source))


def _against_notes(
    states: Sequence[LedgerState], notes: Sequence[tuple[str, Note]], plans: Sequence[Plan]
) -> Iterator[Finding]:
    known = [*plans, *(plan for state in states for plan in state.used_plans())]
    for source, note in notes:
        for state in states:
            if note.origin == state.origin:
                yield from _as_findings(check_note(state, note, source), state.name)
                state.backings += note_backings(state, note, source)
        if all(note.origin != state.origin for state in states):
            yield from _as_findings(check_absent(note, source, known), source)


def _against_copies(states: Sequence[LedgerState], copies: Sequence[Copy]) -> Iterator[Finding]:
    for copy in copies:
        yield from _as_findings(copy_problems(copy), copy.source)
        if not copy.sound:
            continue
        about = [state for state in states if state.silo_id == copy.silo_id]
        for state in about:
            yield from _as_findings(check_copy(state, copy), state.name)
            size = len(copy.hashes)
            state.backings.append(Backing(copy.source, size, copy.hashes[size], "copy"))
        if not about:
            text = f"it is a copy of {copy.silo_id!r}, whose ledger was not handed in"
            yield from _as_findings([("absent-ledger", text)], copy.source)


def backed(state: LedgerState) -> dict[str, int]:
    """Return how many records of the ledger each other party has seen, as they stand here."""
    sizes: dict[str, int] = {}
    for backing in state.backings:
        as_seen = state.hashes.get(backing.size) == backing.root
        if as_seen and backing.witness != state.silo_id:
            sizes[backing.witness] = max(sizes.get(backing.witness, 0), backing.size)
    return sizes


def _remarks(
    states: Sequence[LedgerState], plans: Sequence[Plan], has_witness: bool
) -> Iterator[str]:
    if not plans:
        yield (
            "No plan was handed in: the plans that the ledgers themselves hold were used. Give "
            "--plan with a copy that you got from somebody you trust."
        )
    if not has_witness:
        yield (
            "No witness was handed in: a roll-back of the newest records cannot be excluded. "
            "Give --witness with notes that others keep."
        )
    for state in states:
        seen = backed(state)
        if seen:
            newest = max(seen.values())
            who = ", ".join(sorted(name for name, size in seen.items() if size == newest))
            yield (
                f"{state.silo_id}: {newest} of {state.seq} records have been seen by others "
                f"({who}); to hide a change of them, every one of them would have to lie."
            )
        else:
            yield f"{state.silo_id}: nobody else has been shown to have seen any of its records."
        if not any(plan.roster for plan in state.used_plans()):
            yield f"{state.silo_id}: no plan pins its key, which rests on the ledger's own word."
