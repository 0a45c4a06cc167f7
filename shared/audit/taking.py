"""What a verifier remembers of each record, as the record says it is."""

from collections.abc import Callable, Mapping

from .formats import origin_of, read_key, read_time
from .plans import read_plan
from .reading import Record
from .rules import policy
from .state import LedgerState, Paid
from .witnesses import read_heads, witnessed_backings


def seq_of(record: Record) -> int:
    """Return the number that a record bears, or its place where it bears none."""
    number = record.body.get("seq")
    return number if type(number) is int else record.place


def take(record: Record, state: LedgerState, *, sound: bool) -> None:
    """Remember a record, as it says it is."""
    state.seq = seq_of(record)
    state.head = state.hashes[state.seq] = record.hash
    kind = str(record.body.get("type"))
    state.counts[kind] += 1
    if not sound:
        return
    time = read_time(record.body["ts"])
    state.first = state.first or time
    state.newest = max(state.newest or time, time)
    if kind in _TAKERS:
        _TAKERS[kind](record, state)


def _take_genesis(record: Record, state: LedgerState) -> None:
    if not state.silo_id:
        state.silo_id = record.body["silo_id"]
        state.origin = origin_of(state.silo_id)
        _take_key(record, state)


def _take_key(record: Record, state: LedgerState) -> None:
    try:
        state.keys.append((state.seq, read_key(record.body["key"])))
    except ValueError:
        return


def _take_policy(record: Record, state: LedgerState) -> None:
    if not list(policy(record, state)):
        state.policy = record.body


def _take_plan(record: Record, state: LedgerState) -> None:
    body = record.body
    digest = body["plan_digest"]
    if digest not in state.plans:
        try:
            plan = read_plan(body["plan"])
        except (ValueError, ArithmeticError, TypeError, KeyError, AttributeError):
            return
        if plan.digest == digest:
            state.plans[digest] = plan
    state.approvals.append((state.seq, read_time(body["ts"]), digest, body["approved"]))
    if body["approved"]:
        state.current = digest
    elif digest == state.current:
        state.current = ""


def _take_debit(record: Record, state: LedgerState) -> None:
    body = record.body
    paid = Paid(
        seq=state.seq,
        time=read_time(body["ts"]),
        plan_digest=body["plan_digest"],
        kind=body["kind"],
        round_num=body["round_num"],
        attempt=body["attempt"],
        cost=body["cost"],
        left=body["left"],
    )
    state.debits[state.seq] = paid
    state.paid.setdefault(paid.key, paid.seq)
    state.spent[paid.plan_digest] += paid.cost
    plan = state.plans.get(paid.plan_digest)
    planned = plan.releases.get((paid.kind, paid.round_num)) if plan else None
    if planned is not None:
        state.window.pay(paid.time, planned)
        state.spent_alike[paid.plan_digest, planned.alike] += paid.cost
    if body["witnessed"]:
        backings = witnessed_backings(record, state)
        newest = {backing.witness: backing for backing in (*state.backings, *backings)}
        state.backings = list(newest.values())


def _take_release(record: Record, state: LedgerState) -> None:
    state.released.setdefault(record.body["debit_seq"], state.seq)
    state.blobs.setdefault(record.body["blob"], state.seq)
    state.rngs[record.body["rng"]] += 1
    state.last_release = state.seq
    if masked := record.body["masked"]:
        state.masked.setdefault(_key(record), masked)
        state.participants.setdefault(masked, state.seq)


def _take_unmask(record: Record, state: LedgerState) -> None:
    state.unmasked.setdefault(_key(record), record.body["survivors"])


def _take_refusal(record: Record, state: LedgerState) -> None:
    body = record.body
    state.refusals[body["code"]] += 1
    if body["failed"]:
        state.failed.setdefault(_key(record), state.seq)


def _key(record: Record) -> tuple[str, str, int, int]:
    body = record.body
    return body["plan_digest"], body["kind"], body["round_num"], body["attempt"]


def _take_cosign(record: Record, state: LedgerState) -> None:
    heads = list(read_heads(record.body["heads"]))
    state.cosigned += [(state.seq, origin, size, root) for origin, size, root in heads]
    state.last_cosigned.update({origin: (size, root) for origin, size, root in heads})


def _take_erasure(record: Record, state: LedgerState) -> None:
    state.erasures.append((read_time(record.body["ts"]), record.body["count"]))


def _take_audit(record: Record, state: LedgerState) -> None:
    body = record.body
    state.audits.append((read_time(body["ts"]), body["verdict"], body["by"]))


_TAKERS: Mapping[str, Callable[[Record, LedgerState], None]] = {
    "GENESIS": _take_genesis,
    "KEYROT": _take_key,
    "POLICY": _take_policy,
    "PLAN": _take_plan,
    "DEBIT": _take_debit,
    "RELEASE": _take_release,
    "UNMASK": _take_unmask,
    "REFUSAL": _take_refusal,
    "COSIGN": _take_cosign,
    "ERASURE": _take_erasure,
    "AUDIT": _take_audit,
}
