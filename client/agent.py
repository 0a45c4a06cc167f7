"""SiloAgent: owns a silo's data, ledger and outbox, and answers rounds of its own plan only."""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fondaco.shared import codec
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import BudgetError, CodecError, LedgerError, PrivacyError, RefusalError
from fondaco.shared.models import PublicFacts, Timelines
from fondaco.shared.models.terms import needs_model, training_ends, trains_locally
from fondaco.shared.privacy.clipping import ClippedSum
from fondaco.shared.privacy.contribution import Histories, bound_contributions
from fondaco.shared.privacy.ledger import Debit, Ledger
from fondaco.shared.privacy.noise import NoiseStream, Sample
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.privacy.release import release, release_steps
from fondaco.shared.provenance import code_digest
from fondaco.shared.records import GlobalModel, PrivateUpdate, RoundRequest, SiloStatus
from fondaco.shared.workspace import folder_name

from .dataset import SiloDataset
from .training import Task, clipped_sum, computable, local_mover


@dataclass(frozen=True)
class SiloHome:
    """Where a silo keeps its ledger and the blobs it may have to send again."""

    folder: Path
    silo_id: str

    @property
    def _name(self) -> str:
        return folder_name(self.silo_id)

    @property
    def ledger(self) -> Path:
        """The silo's SQLite ledger."""
        return self.folder / "ledgers" / f"{self._name}.db"

    @property
    def models(self) -> Path:
        """The folder of global models on which rounds build, by digest."""
        return self.folder / "models"

    @property
    def sent(self) -> Path:
        """The folder of everything released."""
        return self.folder / "outbox" / self._name

    def outbox(self, kind: str, round_num: int, attempt: int) -> Path:
        """The bytes released in one round."""
        return self.sent / f"{round_num}-{kind}-{attempt}.bin"


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

    Raises:
        RefusalError: a seed outside of a simulation, or a plan for other code, for another
            catalogue or for statistics that this code cannot compute.
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
        self.dataset = dataset
        self.plan = plan
        self._catalogue = catalogue
        self._received, self._received_digest = b"", ""
        self._keep_open = keep_open
        self._kept: Ledger | None = None
        self._home = home
        self._seed = seed
        self._shapes = Shapes.of_plan(plan)

    @property
    def silo_id(self) -> str:
        """The data owner's public name."""
        return self.dataset.silo_id

    @property
    def model(self) -> GlobalModel | None:
        """Everybody's model once it is here.

        A thousand silos in one process share the bytes that came and what was read from them.
        """
        return (
            _facts(self._received, self._catalogue, self._shapes).model if self._received else None
        )

    def status(self) -> bytes:
        """Return an encoded `SiloStatus`; opens the ledger, creating it on first contact."""
        with self._alone(), self._ledger() as ledger:
            head = ledger.head()
        return codec.encode(
            SiloStatus(
                silo_id=self.silo_id,
                plan_digest=self.plan.digest,
                code_digest=code_digest(),
                ledger_seq=head.seq,
                ledger_digest=head.digest,
            )
        )

    def run_round(self, blob: bytes) -> bytes:
        """Answer an encoded `RoundRequest` with an encoded `PrivateUpdate`.

        The same request again gets the byte-identical answer without a new debit; another
        request for the same round and attempt is refused.

        Raises:
            CodecError: the request is malformed.
            RefusalError: the plan does not allow it; the ledger says so.
            BudgetError: the budget does not cover it, or the released bytes are lost.
        """
        request = codec.decode(blob, RoundRequest, self._shapes)
        with self._alone(), self._ledger() as ledger:
            try:
                self._check(request)
                debit = ledger.debit(
                    request.kind, request.round_num, request.attempt, request=_sha256(blob)
                )
                if debit.released:
                    return self._sent_before(debit, ledger)
                return self._release_once(request, debit, ledger)
            except RefusalError as error:
                ledger.refuse(request.kind, request.round_num, request.attempt, str(error))
                raise

    def receive(self, blob: bytes) -> None:
        """Take over an encoded `GlobalModel` of this plan, on which later rounds may build.

        Raises:
            CodecError: it is malformed.
            RefusalError: it belongs to another plan or catalogue.
        """
        model = codec.decode(blob, GlobalModel, self._shapes)
        wanted = self.plan.digest, self.plan.catalogue_digest
        if (model.plan_digest, model.catalogue_digest) != wanted:
            raise RefusalError("the global model belongs to another plan or catalogue")
        _check_head(model.head, self.plan.n_items)
        self._received, self._received_digest = blob, _sha256(blob)
        if model.after_round < len(self.plan.releases):
            self._keep(blob)
            return
        for path in self._home.sent.glob("*.bin"):
            path.unlink(missing_ok=True)

    def _keep(self, blob: bytes) -> None:
        """Keep a model for agents of other processes; silos of one machine share the file."""
        path = self._home.models / f"{_sha256(blob).removeprefix('sha256:')}.fndc"
        if not path.is_file():
            _write_durably(path, blob)

    def _model_bytes(self, digest: str) -> bytes:
        """Return the global model that a request builds upon.

        Raises:
            RefusalError: it has not been sent here.
        """
        if self._received_digest != digest:
            if not re.fullmatch("sha256:[0-9a-f]{64}", digest):
                raise RefusalError("the request names no global model to build upon")
            path = self._home.models / f"{digest.removeprefix('sha256:')}.fndc"
            blob = path.read_bytes() if path.is_file() else b""
            if _sha256(blob) != digest:
                raise RefusalError("the global model that the request builds upon is not here")
            self.receive(blob)
        return self._received

    def _task(self, request: RoundRequest) -> Task:
        needed = request.kind in needs_model(self.plan)
        blob = self._model_bytes(request.model_digest) if needed else b""
        return Task(
            plan=self.plan,
            dataset=self.dataset,
            histories=self._histories,
            timelines=self._timelines,
            head=request.head,
            facts=_facts(blob, self._catalogue, self._shapes) if blob else None,
        )

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
    def _alone(self) -> Iterator[None]:
        """Wait for this silo's other agents: two at once would overwrite each other's outbox."""
        self._home.sent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._home.sent / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

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
        marker = self._home.sent / "opened"
        if not self._home.ledger.is_file() and marker.is_file():
            raise LedgerError(f"{self._home.ledger} is gone but it was in use; restore it")
        ledger = Ledger.open_or_create(self._home.ledger, self.silo_id, self.plan)
        marker.touch()
        return ledger

    def _check(self, request: RoundRequest) -> None:
        """Refuse, before anything is paid for, what could not be answered."""
        if request.plan_digest != self.plan.digest:
            raise RefusalError("the request names a plan that this silo did not agree to")
        if request.code_digest != code_digest():
            raise RefusalError("the request is meant for other code than this silo runs")
        _check_head(request.head, self.plan.n_items)
        if request.kind in needs_model(self.plan):
            self._model_bytes(request.model_digest)

    def _release_once(self, request: RoundRequest, debit: Debit, ledger: Ledger) -> bytes:
        """Compute and release; an attempt that fails on these data is not tried again."""
        try:
            return self._release(request, debit, ledger)
        except (OSError, LedgerError, RefusalError):
            raise  # of the disk or the request, whatever the data are
        except Exception:
            key = request.kind, request.round_num, request.attempt
            ledger.refuse(*key, "the computation failed", failed=1)
            raise

    def _release(self, request: RoundRequest, debit: Debit, ledger: Ledger) -> bytes:
        noise = self._noise(request)
        blob = codec.encode(self._update(request, debit, noise))
        path = self._home.outbox(request.kind, request.round_num, request.attempt)
        _write_durably(path, blob)
        ledger.record_release(debit, blob, noise.source)
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

    def _sent_before(self, debit: Debit, ledger: Ledger) -> bytes:
        event = debit.event
        path = self._home.outbox(event.kind, event.round_num, debit.attempt)
        blob = path.read_bytes() if path.is_file() else b""
        if _sha256(blob) != debit.released:
            ledger.refuse(event.kind, event.round_num, debit.attempt, "the released bytes are gone")
            raise BudgetError(
                f"{event.kind} of round {event.round_num} was released and its bytes are gone; "
                "releasing again would spend the budget twice"
            )
        return blob

    def _noise(self, request: RoundRequest) -> NoiseStream:
        if self._seed is None:
            return NoiseStream.from_system()
        labels = request.kind, str(request.round_num), str(request.attempt)
        return NoiseStream.seeded(self._seed, self.silo_id, *labels)


def _check_head(head: NDArray[np.int64], n_items: int) -> None:
    if len(np.unique(head)) != len(head) or np.any((head < 0) | (head >= n_items)):
        raise RefusalError("the head must hold distinct items of the catalogue")


@lru_cache(maxsize=3)
def _facts(blob: bytes, catalogue: Catalogue, shapes: Shapes) -> PublicFacts:
    """The global model in `blob`, read once for all silos of a process."""
    return PublicFacts(catalogue=catalogue, model=codec.decode(blob, GlobalModel, shapes))


def public_reason(error: Exception) -> str:
    """Return what may be said about a failure outside of the silo: public facts only.

    Other errors, ours included, may quote cells of a table or count customers.
    """
    quotable = isinstance(error, CodecError | PrivacyError)
    if quotable and not isinstance(error, LedgerError):  # those name paths of the silo
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__} (details stay at the silo)"


def _sha256(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _write_durably(path: Path, blob: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
