"""SiloAgent: owns a silo's data, ledger and outbox, and answers rounds of its own plan only."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fondaco.shared import codec
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.chain.witness import Call, Testimony
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import LedgerError, RefusalError
from fondaco.shared.files import write_durably
from fondaco.shared.models import Timelines
from fondaco.shared.models.terms import needs_model, training_ends, trains_locally
from fondaco.shared.privacy.clipping import ClippedSum
from fondaco.shared.privacy.contribution import Histories, bound_contributions
from fondaco.shared.privacy.ledger import Debit, Ledger
from fondaco.shared.privacy.noise import NoiseStream, Sample
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.privacy.release import release, release_steps
from fondaco.shared.privacy.witnessed import check_newest
from fondaco.shared.provenance import code_digest
from fondaco.shared.records import (
    GlobalModel,
    MaskedUpdate,
    PrivateUpdate,
    RoundRequest,
    SiloStatus,
    presence,
)
from fondaco.shared.secagg.session import Masks

from .commitments import commit_to, commitment_key, rows_digest
from .dataset import SiloDataset
from .erasure import Erasures
from .home import SiloHome
from .limits import simulated_policy
from .masking import Key, MaskedSums, masked, sent, signed_release
from .received import ReceivedModels, check_head
from .testimony import cosign_offers
from .training import Task, clipped_sum, computable, local_mover


class SiloAgent:
    """One silo's side of a run.

    Args:
        dataset: the silo's rows; `dataset.train` is read for releases, `dataset.valid` for the
            fusion statistic, `dataset.test` for none.
        plan: what the data owner agreed to.
        catalogue: the public items that the plan names.
        home: ledger and outbox.
        seed: reproducible noise, simulations only; None draws from the operating system.
        keep_open: whether the ledger stays open between rounds, until `close`; whatever other
            processes append is still read.
        identity: the owner's key; a simulation may leave it to the seed.

    Raises:
        RefusalError: a seed outside of a simulation, or a plan for other code, for another
            catalogue, for statistics that this code cannot compute or for another key.
    """

    def __init__(
        self,
        dataset: SiloDataset,
        plan: RunPlan,
        catalogue: Catalogue,
        home: SiloHome,
        seed: int | None = None,
        *,
        keep_open: bool = False,
        identity: Identity | None = None,
    ) -> None:
        if seed is not None and plan.mode != "simulation":
            raise RefusalError("seeded noise protects nobody; only a simulation may use it")
        if plan.code_digest != code_digest():
            raise RefusalError(
                f"the plan was made for code {plan.code_digest[:19]}, this is {code_digest()[:19]}"
            )
        if plan.catalogue_digest != catalogue.digest:
            raise RefusalError("the plan was made for another catalogue")
        known = computable(plan)
        unknown = {event.kind for event in plan.releases} - known
        if unknown:
            raise RefusalError(f"the plan releases {sorted(unknown)}; known: {sorted(known)}")
        if identity is None and plan.mode != "simulation":
            raise RefusalError("only a simulation may do without the owner's key", "no-key")
        self._identity = identity or Identity.seeded(seed or 0, key_name(dataset.silo_id))
        mine = plan.roster.get(dataset.silo_id, "")
        if plan.roster and mine != self._identity.public.text():
            raise RefusalError("the plan names another key for this silo", "other-key")
        self.dataset = dataset
        self.plan = plan
        self._models = ReceivedModels(plan, catalogue, home.models)
        self._keep_open = keep_open
        self._kept: Ledger | None = None
        self._home = home
        self._seed = seed
        self._shapes = Shapes.of_plan(plan)
        self._masked = MaskedSums(home.session, plan, dataset.silo_id, self._identity)
        self._masked.sweep()

    @property
    def silo_id(self) -> str:
        """The data owner's public name."""
        return self.dataset.silo_id

    @property
    def model(self) -> GlobalModel | None:
        """Everybody's model once it is here.

        A thousand silos in one process share the bytes that came and what was read from them.
        """
        return self._models.newest

    def status(self) -> bytes:
        """Return an encoded `SiloStatus`; opens the ledger, creating it on first contact."""
        with self._home.alone(), self._ledger() as ledger:
            head = ledger.chain.head
            self._masked.sweep()
        return codec.encode(
            SiloStatus(
                silo_id=self.silo_id,
                plan_digest=self.plan.digest,
                code_digest=code_digest(),
                ledger_seq=head.size,
                ledger_digest=f"sha256:{head.root.hex()}",
            )
        )

    def run_round(self, blob: bytes, witnessed: str = "", delivery: bytes = b"") -> bytes:
        """Answer an encoded `RoundRequest` with an encoded `PrivateUpdate` or `MaskedUpdate`.

        The same request again gets the byte-identical answer without a new debit; another
        request for the same round and attempt is refused.

        Args:
            blob: the request.
            witnessed: this silo's own head with the signatures of its witnesses.
            delivery: who takes part in a masked sum, and what they sent; else empty.

        Raises:
            CodecError: the request is malformed.
            RefusalError: the plan, its owner or the budget does not allow it, or the released
                bytes are lost; the ledger says so.
        """
        request = codec.decode(blob, RoundRequest, self._shapes)
        key = request.kind, request.round_num, request.attempt
        with self._home.alone(), self._ledger() as ledger:
            check_newest(ledger.chain, witnessed)
            self._home.check_mark(ledger.chain.head.size)
            try:
                self._forget_erased()
                self._check(request)
                again = sent(ledger, self.plan, key)  # the same bytes then, whatever is kept
                masks = None if again else self._masks(blob, delivery, key)
                opening = commitment_key(self._secret, self.plan, *key)
                commit = commit_to(self._rows_digest, opening)
                asked = _sha256(blob, delivery) if delivery else _sha256(blob)
                debit = ledger.debit(*key, request=asked, commit=commit, witnessed=witnessed)
                released = (
                    self._home.sent_before(debit)
                    if debit.released
                    else self._release_once(request, debit, ledger, masks)
                )
                self._home.mark(ledger.chain.of_type("RELEASE")[-1]["seq"])
                return released
            except RefusalError as error:
                ledger.refuse(*key, error)
                raise

    def vouch(self, released: bytes) -> bytes:
        """Return what goes along with a release: the owner's word for whom its masks cancel among.

        Empty where nothing is masked.
        """
        if not self._masked.needed:
            return b""
        update = codec.decode(released, MaskedUpdate, self._shapes)
        return signed_release(update, self._identity).to_bytes()

    def present(self, nonce: bytes) -> bytes:
        """Return the owner's signature over what the coordinator drew for its roll call."""
        return self._identity.sign(presence(self.plan.digest, self.silo_id, nonce))

    def answer(self, step: str, blob: bytes, witnessed: str = "") -> bytes:
        """Answer one step of a masked sum, from "hello" to "unmask".

        Args:
            step: one of `masking.STEPS`.
            blob: the encoded request.
            witnessed: this silo's own head as others have seen it.

        Raises:
            CodecError: the request is malformed.
            RefusalError: the plan masks nothing, or the request is not allowed; the ledger says
                so.
        """
        with self._home.alone(), self._ledger() as ledger:
            check_newest(ledger.chain, witnessed)
            self._home.check_mark(ledger.chain.head.size)
            return self._masked.answer(step, blob, ledger)

    def cosign(self, call: Call) -> Testimony:
        """Take back own records that were lost, and co-sign others' heads that follow.

        Raises:
            LedgerError: the records do not follow from this ledger.
        """
        with self._home.alone(), self._ledger() as ledger:
            if call.lines:
                ledger.chain.absorb(call.lines)
            try:
                check_newest(ledger.chain, call.note)
                self._home.check_mark(ledger.chain.head.size)
            except RefusalError:
                return Testimony(note=ledger.chain.note())  # too short: it gets its records back
            return cosign_offers(ledger, self._identity, self.plan, call, self._home.replicas)

    def testify(self, call: Call) -> Testimony:
        """Return this silo's signed head and the records that the coordinator lacks."""
        with self._home.alone(), self._ledger() as ledger:
            return Testimony(note=ledger.chain.note(), lines=tuple(ledger.chain.lines(call.since)))

    def receive(self, blob: bytes) -> None:
        """Take over an encoded `GlobalModel` of this plan, on which later rounds may build.

        Raises:
            CodecError: it is malformed.
            RefusalError: it belongs to another plan or catalogue.
        """
        model = codec.decode(blob, GlobalModel, self._shapes)
        try:
            last = self._models.take(blob, model)
        except RefusalError as error:
            with self._home.alone(), self._ledger() as ledger:
                ledger.refuse("publish", model.after_round, 1, error)
            raise
        if last:
            for path in self._home.sent.glob("*.bin"):
                path.unlink(missing_ok=True)
            self._masked.forget()

    def _task(self, request: RoundRequest) -> Task:
        needed = request.kind in needs_model(self.plan)
        return Task(
            plan=self.plan,
            dataset=self.dataset,
            histories=self._histories,
            timelines=self._timelines,
            head=request.head,
            facts=self._models.facts(request.model_digest) if needed else None,
        )

    def _forget_erased(self) -> None:
        """Drop customers erased since the last draw, and everything computed with them."""
        kept = Erasures(self._home.erased, self._secret).kept(self.dataset)
        if kept is not self.dataset:
            self.dataset = kept
            for derived in ("_rows_digest", "_timelines", "_histories"):
                self.__dict__.pop(derived, None)

    @cached_property
    def _secret(self) -> bytes:
        return self._home.secret(self._identity)

    @cached_property
    def _rows_digest(self) -> str:
        return rows_digest(self.dataset)

    @cached_property
    def _timelines(self) -> Timelines:
        return self.dataset.timelines(training_ends(self.plan))

    @cached_property
    def _histories(self) -> Histories:
        rows = self.dataset.train
        return bound_contributions(
            rows.user_nums, rows.item_nums, self.dataset.n_users, self.plan.n_items
        )

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        """Give the ledger, opened and checked anew unless it is kept open between rounds."""
        ledger = self._kept or self._open_ledger()
        try:
            yield ledger
        except BaseException:
            self._kept = None
            ledger.close()
            raise
        if self._keep_open:
            self._kept = ledger
        else:
            ledger.close()

    def close(self) -> None:
        """Close the ledger, if it was kept open."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _open_ledger(self) -> Ledger:
        """Open the ledger; create it once, and never again."""
        marker = self._home.opened
        if not self._home.ledger.is_file() and marker.is_file():
            raise LedgerError(f"{self._home.ledger} is gone but it was in use; restore it")
        limits = simulated_policy(self.plan)
        ledger = Ledger.open_or_create(
            self._home.ledger, self.silo_id, self._identity, self.plan, limits
        )
        marker.touch()
        return ledger

    def _check(self, request: RoundRequest) -> None:
        """Refuse, before anything is paid for, what could not be answered."""
        if request.plan_digest != self.plan.digest:
            raise RefusalError(
                "the request names another plan than this silo agreed to", "other-plan"
            )
        if request.code_digest != code_digest():
            raise RefusalError("the request is meant for other code than runs here", "other-code")
        check_head(request.head, self.plan.n_items)
        if request.kind in needs_model(self.plan):
            self._models.require(request.model_digest)

    def _masks(self, blob: bytes, delivery: bytes, key: Key) -> Masks | None:
        """Return the masks that the plan asks for; None where it asks for none.

        Raises:
            RefusalError: it is asked for a sum without masks, or the other way round.
        """
        if bool(delivery) != self._masked.needed:
            raise RefusalError("the plan and the request differ about masks", "unmasked")
        return self._masked.masks(blob, delivery, key) if delivery else None

    def _release_once(
        self, request: RoundRequest, debit: Debit, ledger: Ledger, masks: Masks | None
    ) -> bytes:
        """Compute and release; an attempt that fails on these data is not tried again."""
        try:
            return self._release(request, debit, ledger, masks)
        except (OSError, LedgerError, RefusalError):
            raise  # of the disk or the request, whatever the data are
        except Exception:
            key = request.kind, request.round_num, request.attempt
            ledger.refuse(*key, RefusalError("the computation failed", "failed"), failed=1)
            raise

    def _release(
        self, request: RoundRequest, debit: Debit, ledger: Ledger, masks: Masks | None
    ) -> bytes:
        noise = self._noise(request)
        update = self._update(request, debit, noise)
        hidden = masked(update, masks, self.plan.ring_bits) if masks else update
        blob = codec.encode(hidden)
        path = self._home.outbox(request.kind, request.round_num, request.attempt)
        write_durably(path, blob)
        participants = masks.participants if masks else ""
        ledger.record_release(debit, blob, noise.source, participants)
        return blob

    def _update(self, request: RoundRequest, debit: Debit, noise: NoiseStream) -> PrivateUpdate:
        task, kind, n_users = self._task(request), request.kind, self.dataset.n_users
        if not trains_locally(self.plan, kind):
            sample = noise.sample(n_users, debit.event.sampling_ppm)
            total = clipped_sum(task, kind, request.parameters, sample)
            if total.sample is not None and total.sample is not sample:
                raise RefusalError(f"{kind} was computed from another sample than was drawn")
            return release(total, debit, noise)

        def gradient(parameters: NDArray[np.float64], sample: Sample) -> ClippedSum:
            return clipped_sum(task, kind, parameters.astype(np.float32), sample)

        start = request.parameters.astype(np.float64)
        mover = local_mover(task, kind)
        return release_steps(start, gradient, mover, debit, noise, n_users=n_users)

    def _noise(self, request: RoundRequest) -> NoiseStream:
        if self._seed is None:
            return NoiseStream.from_system()
        labels = request.kind, str(request.round_num), str(request.attempt)
        return NoiseStream.seeded(self._seed, self.silo_id, *labels)


def _sha256(*blobs: bytes) -> str:
    """Return the hash of a blob, or that of the hashes of several."""
    if len(blobs) == 1:
        return f"sha256:{hashlib.sha256(blobs[0]).hexdigest()}"
    return _sha256(b"".join(hashlib.sha256(blob).digest() for blob in blobs))
