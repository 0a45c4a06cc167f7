"""What a silo has promised and spent: rules over a signed chain of records.

Rules held here, each by a test:
1. A DEBIT is committed before the debited number exists outside.
2. A debit must be in the plan that the owner approved last and that has not expired, once per
   (kind, round, attempt), and fit both what was planned of its like and the owner's budget:
   integer comparisons inside the transaction that writes it.
3. A debit needs a head that the plan's witnesses have co-signed and that covers every earlier
   release: who rolls a ledger back finds nobody who signs.
4. No refunds: a crash after a DEBIT leaves it spent. The same request, byte for byte, may be
   retried under it, because nothing left the silo before its RELEASE was written; afterwards
   only the byte-identical blob may be sent again.
5. Records hold no customer, no count and no seed.
6. A refused request is written down as REFUSAL.
7. Where sums are masked, only masked bytes leave, and one answer per round helps to unmask.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ..chain.keys import Identity
from ..chain.notes import Checkpoint
from ..chain.store import Chain, is_begun
from ..errors import NEW_ATTEMPT, BudgetError, LedgerError, RefusalError
from .events import EVERYBODY, MECHANISM, PrivacyEvent
from .plan import MASKED, RunPlan
from .policy import Policy
from .witnessed import witnessed_head

SCHEMA = 4
MAX_REFUSALS = 10_000
"""Whoever is refused more often is still refused, but no longer fills the disk."""

Body = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Debit:
    """Proof that a release has been paid for. Only `Ledger.debit` makes it.

    Attributes:
        bound: where each number of the sum is cut off, before noise [grid units].
        seq: the DEBIT record's number.
        released: SHA-256 of the blob already released under it, "" if none was.
        used: whether `release` has drawn noise for it; a proof serves once.
    """

    silo_id: str
    plan_digest: str
    event: PrivacyEvent
    attempt: int
    bound: int
    seq: int
    released: str
    used: bool = field(default=False, init=False, compare=False)


class Ledger:
    """One silo's ledger, open for its owner; use as a context manager.

    Args:
        path: the SQLite file.
        owner: the key that signs it.
        plan: what may be debited; None for the owner's own records only.

    Raises (all methods):
        LedgerError: the file is damaged, locked, full or somebody else's.
    """

    def __init__(self, path: Path, owner: Identity, plan: RunPlan | None = None) -> None:
        """Open an existing ledger and check its whole chain."""
        self._chain = Chain(path, owner)
        self._plan = plan
        genesis = self._chain.bodies[0]
        self.silo_id = str(genesis.get("silo_id"))
        if (genesis["type"], genesis.get("schema")) != ("GENESIS", SCHEMA):
            self.close()
            raise LedgerError(
                f"{path} has schema {genesis.get('schema')}; this code reads {SCHEMA}"
            )

    @classmethod
    def open_or_create(
        cls,
        path: Path,
        silo_id: str,
        owner: Identity,
        plan: RunPlan | None = None,
        policy: Policy | None = None,
    ) -> Self:
        """Open the ledger at `path`, beginning it with GENESIS if it has no records yet.

        A simulation is its own owner: its limits are set and its plan is approved here.
        """
        if not is_begun(path):
            genesis = {"type": "GENESIS", "schema": SCHEMA, "silo_id": silo_id}
            Chain.create(path, owner, [{**genesis, "key": owner.public.text()}]).close()
        ledger = cls(path, owner, plan)
        if ledger.silo_id != silo_id:
            ledger.close()
            raise LedgerError(f"{path} belongs to another silo than {silo_id!r}")
        if plan is not None and plan.mode == "simulation" and not ledger._chain.of_type("PLAN"):
            if policy is not None:
                ledger.adopt(policy)
            ledger.approve(plan)
        return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._chain.close()

    @property
    def chain(self) -> Chain:
        """The signed records themselves, to be exported, witnessed or taken back."""
        return self._chain

    def records(self) -> tuple[Body, ...]:
        """Return every record's body, oldest first."""
        return tuple(self._chain.bodies)

    def spent_units(self, like: PrivacyEvent | None = None) -> int:
        """Return what the plan's debits, or those alike, have taken from its budget [1e-9 RDP]."""
        digest = self._agreed().digest
        debits = [r for r in self._chain.of_type("DEBIT") if r["plan_digest"] == digest]
        if like is not None:
            debits = [r for r in debits if PrivacyEvent(**r["event"]).alike == like.alike]
        return sum(r["cost"] for r in debits)

    def approve(self, plan: RunPlan, *, approved: int = 1, reason: str = "") -> None:
        """Sign `plan`, from now on the only one, or withdraw from it (`approved` = 0).

        Raises:
            RefusalError: the owner's policy does not allow it.
        """
        if approved and (policy := self.policy()) is not None:
            policy.check_plan(plan)
        newest = self._chain.of_type("PLAN")[-1:]
        if newest and (newest[0]["plan_digest"], newest[0]["approved"]) == (plan.digest, approved):
            return
        epsilons = {name: f"{value:.6f}" for name, value in plan.epsilons().items()}
        simulated = plan.mode == "simulation"
        self._append(
            {
                "type": "PLAN",
                "plan_digest": plan.digest,
                "plan": asdict(plan),
                "approved": approved,
                "reason": reason,
                "claims": "none (simulation)" if simulated else "as planned",
                **epsilons,
            }
        )

    def adopt(self, policy: Policy) -> None:
        """Put the owner's limits into force."""
        if policy != self.policy():
            terms = {"policy": asdict(policy), "budget_units": policy.budget_units}
            self._append({"type": "POLICY", **terms})

    def policy(self) -> Policy | None:
        """Return the limits in force, None if the owner has set none."""
        adopted = self._chain.of_type("POLICY")
        return Policy(**adopted[-1]["policy"]) if adopted else None

    def note_erasure(self, n_customers: int) -> None:
        """Write down that customers were erased: how many, roughly, and never who."""
        low = 10 ** (len(str(n_customers)) - 1)
        self._append({"type": "ERASURE", "count": f"{low} to {10 * low - 1}"})

    def note_audit(self, report: bytes, verdict: str, by: str) -> None:
        """Write down that somebody audited this ledger and what they found."""
        self._append({"type": "AUDIT", "report": _sha256(report), "verdict": verdict, "by": by})

    def note_cosigned(self, heads: Sequence[Checkpoint]) -> None:
        """Write down, before the cosignatures leave, which heads of others they are for."""
        if heads:
            self._append({"type": "COSIGN", "heads": [head.as_text() for head in heads]})

    def debit(
        self,
        kind: str,
        round_num: int,
        attempt: int = 1,
        *,
        request: str,
        commit: str = "",
        witnessed: str = "",
    ) -> Debit:
        """Pay for one release and return the proof; asking again returns the first proof.

        Args:
            kind: name of the statistic.
            round_num: federated round.
            attempt: each is paid for.
            request: SHA-256 of the request that the release answers, as `sha256:...`.
            commit: keyed commitment to private facts of the data.
            witnessed: this ledger's head as a note, with its witnesses' cosignatures.

        Raises:
            RefusalError: rules 2 to 4; a REFUSAL record says so.
            BudgetError: what is left does not cover it; a REFUSAL record says so.
        """
        key = _key(kind, round_num, attempt)
        try:
            with self._chain.writing():
                paid, done = self._find("DEBIT", key), self._find("RELEASE", key)
                if done is None:
                    self.check_in_force()
                if paid is None:
                    body = self._new_debit(key, witnessed)
                    paid = self._chain.append({**body, "request": request, "commit": commit})
            if paid["request"] != request:
                raise RefusalError(
                    f"another request for {kind} in round {round_num} was paid for",
                    "other-request",
                )
            self._check_open(key)
        except RefusalError as error:
            self.refuse(kind, round_num, attempt, error)
            raise
        event = PrivacyEvent(**paid["event"])
        return Debit(
            silo_id=self.silo_id,
            plan_digest=paid["plan_digest"],
            event=event,
            attempt=attempt,
            bound=self._plan.sum_bound(event) if self._plan else 0,
            seq=paid["seq"],
            released=done["blob"] if done else "",
        )

    def record_release(self, debit: Debit, blob: bytes, rng: str, masked: str = "") -> None:
        """Write down that `blob`, paid for by `debit`, is about to leave; once per debit.

        Args:
            debit: its proof.
            blob: the bytes.
            rng: where the noise came from.
            masked: digest of the silos without whose masks the bytes say nothing, "" if none.

        Raises:
            BudgetError: another blob was released under this debit.
            RefusalError: the attempt was closed, or the owner has left, since the debit; or the
                plan asks for masks and there are none.
            LedgerError: this ledger holds no such debit.
        """
        key = _key(debit.event.kind, debit.event.round_num, debit.attempt)
        with self._chain.writing():
            paid = self._find("DEBIT", key)
            if paid is None or (paid["seq"], self.silo_id) != (debit.seq, debit.silo_id):
                raise LedgerError(f"{self._chain.path} holds no such debit, nothing was released")
            done = self._find("RELEASE", key)
            if done is None:
                self.check_in_force()
                self._check_open(key)
                if bool(masked) != (self._agreed().secure_aggregation == MASKED):
                    raise RefusalError("what would leave is not masked as planned", "unmasked")
                facts = {"debit_seq": debit.seq, "size_bytes": len(blob), "rng": rng}
                facts["masked"] = masked
                done = self._chain.append(
                    {"type": "RELEASE", **self._named(key), **facts, "blob": _sha256(blob)}
                )
        if (done["blob"], done["masked"]) != (_sha256(blob), masked):
            raise BudgetError("another number was released under this debit already")

    def record_unmask(
        self, kind: str, round_num: int, attempt: int, *, survivors: str, answer: bytes
    ) -> None:
        """Write down that the one answer is about to leave that helps to unmask a sum.

        Raises:
            RefusalError: another answer was given, or nothing masked was released, before.
        """
        key = _key(kind, round_num, attempt)
        facts = {"survivors": survivors, "answer": _sha256(answer)}
        with self._chain.writing():
            sent, known = self._find("RELEASE", key), self._find("UNMASK", key)
            if sent is None or not sent["masked"]:
                raise RefusalError(f"{kind} of round {round_num} has no masks", "out-of-order")
            if known is None:
                self._agreed()
                self._check_open(key)
                known = self._chain.append({"type": "UNMASK", **self._named(key), **facts})
        if not facts.items() <= known.items():
            raise RefusalError("another answer was given in this round already", "other-survivors")

    def refuse(
        self, kind: str, round_num: int, attempt: int, error: RefusalError, *, failed: int = 0
    ) -> None:
        """Write down, once, that a request was refused and why (public facts only).

        `failed` = 1 closes the attempt: whoever could repeat a computation that fails for some
        data would learn about them.
        """
        key = _key(kind, round_num, attempt)
        why = {"code": error.code, "failed": failed}
        with self._chain.writing():
            known = any(why.items() <= record.items() for record in self._all("REFUSAL", key))
            if not known and (failed or len(self._chain.of_type("REFUSAL")) < MAX_REFUSALS):
                reason = {"type": "REFUSAL", "reason": str(error)}
                self._chain.append({**reason, **self._named(key), **why})

    def _new_debit(self, key: Body, witnessed: str) -> dict[str, Any]:
        """Return the body of a debit that rules 2 and 3 allow."""
        plan, now = self._agreed(), datetime.now(UTC)
        event = plan.event_for(key["kind"], key["round_num"])
        witnessed = witnessed_head(plan, self.silo_id, self._chain, witnessed)
        cost = plan.cost(event)
        # Attempts may stand in for each other only where the certificate counts them alike.
        planned = sum(plan.cost(other) for other in plan.releases if other.alike == event.alike)
        left = planned - self.spent_units(event)
        if cost > left:
            whole = float(plan.target_epsilon) / plan.budget_units
            raise BudgetError(
                f"{left * whole:.2f} of {plan.target_epsilon} left, {event.kind} in round "
                f"{event.round_num} costs {cost * whole:.2f}; a new plan is needed"
            )
        policy = self.policy()
        if policy is not None:
            policy.check_plan(plan)
            policy.check_year(policy.cost(event), self._chain.of_type("DEBIT"), now)
        return {
            "type": "DEBIT",
            **self._named(key),
            "unit": plan.unit,
            "adjacency": plan.adjacency,
            "mechanism": MECHANISM,
            "event": asdict(event),
            "grid": plan.grid,
            "sampling": "none" if event.sampling_ppm == EVERYBODY else "poisson",
            "n_min": plan.cohort.n_min,
            "t_collude": plan.cohort.t_collude,
            "order": plan.order,
            "cost": cost,
            "left": plan.budget_units - self.spent_units() - cost,
            "budget": plan.budget_units,
            "policy_cost": policy.cost(event) if policy else 0,
            "witnessed": witnessed,
        }

    def _agreed(self) -> RunPlan:
        """Return the plan, which must be the one that was approved last."""
        newest = self._chain.of_type("PLAN")[-1:]
        plan = self._plan
        if plan is None or not newest or newest[0]["plan_digest"] != plan.digest:
            raise RefusalError("the owner has not approved this plan", "not-approved")
        if not newest[0]["approved"]:
            raise RefusalError(f"the owner has left: {newest[0]['reason']}", "left")
        return plan

    def check_in_force(self) -> None:
        """Refuse what a plan would do that is over, not approved or that the owner has left."""
        if not (plan := self._agreed()).allows(datetime.now(UTC).date()):
            raise RefusalError(f"the plan expired after {plan.expires}", "expired")

    def _check_open(self, key: Body) -> None:
        if any(record["failed"] for record in self._all("REFUSAL", key)):
            raise RefusalError(
                f"{key['kind']} of round {key['round_num']} failed; {NEW_ATTEMPT}",
                "failed-before",
            )

    def _all(self, kind: str, key: Body) -> list[dict[str, Any]]:
        wanted = self._named(key).items()
        return [record for record in self._chain.of_type(kind) if wanted <= record.items()]

    def _find(self, kind: str, key: Body) -> dict[str, Any] | None:
        return next(iter(self._all(kind, key)), None)

    def _named(self, key: Body) -> dict[str, Any]:
        return {**key, "plan_digest": self._plan.digest if self._plan else ""}

    def _append(self, body: Body) -> None:
        with self._chain.writing():
            self._chain.append(body)


def _key(kind: str, round_num: int, attempt: int) -> dict[str, Any]:
    return {"kind": kind, "round_num": round_num, "attempt": attempt}


def _sha256(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
