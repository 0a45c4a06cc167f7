"""What the coordinator keeps of a masked sum while it is under way."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from fondaco.shared import codec
from fondaco.shared.errors import CodecError, RoundError
from fondaco.shared.files import write_durably
from fondaco.shared.records import RoundRequest
from fondaco.shared.secagg.checks import LIFETIME_S
from fondaco.shared.secagg.messages import Message, Task

from .rounds import sha256

Words = NDArray[np.uint32] | NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Journal(Message):
    """How far a masked sum has come; empty parts have not been decided yet.

    Attributes:
        aborted: why it was given up, "" if it was not.
        blamed: silos whose seeds could not be given back, in this attempt or before.
        dropped: silo -> why it is not in the sum.
        roster: the encoded `Roster`.
        shares: the encoded `Shares` of all participants.
        survivors: silo whose numbers are in the total -> the signature that came with them.
        total: SHA-256 of the file that holds the masked total.
        certificate: the encoded `Certificate`.
    """

    max_bytes: ClassVar[int] = 1 << 30
    task: Task
    aborted: str = ""
    blamed: tuple[str, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    roster: bytes = b""
    shares: tuple[bytes, ...] = ()
    survivors: Mapping[str, bytes] = field(default_factory=dict)
    total: str = ""
    certificate: bytes = b""


class Journals:
    """The journals of one plan's rounds in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, request: RoundRequest) -> tuple[RoundRequest, Journal]:
        """Return the attempt that is under way, or a new one; `request` then bears its number.

        An attempt goes on until a day is over, unless it was given up: before anything was
        released, or where asking again cannot help. Another one after a release costs the silos
        their budget again.
        """
        attempt = max((1, *self._attempts(request.round_num)))
        request = replace(request, attempt=attempt)
        known = self._load(request)
        if known is not None:
            same = known.task.request == sha256(codec.encode(request))
            if same and not known.aborted and time.time() < known.task.expires:
                return request, known
        if self._path(request.round_num, attempt, "json").is_file():
            request = replace(request, attempt=attempt + 1)
        task = Task(
            plan_digest=request.plan_digest,
            run_id=secrets.token_hex(16),
            kind=request.kind,
            round_num=request.round_num,
            attempt=request.attempt,
            request=sha256(codec.encode(request)),
            expires=int(time.time()) + LIFETIME_S,
        )
        journal = Journal(task=task, blamed=known.blamed if known else ())
        self.save(journal)
        return request, journal

    def save(self, journal: Journal) -> None:
        """Put a journal on disk."""
        task = journal.task
        write_durably(self._path(task.round_num, task.attempt, "json"), journal.to_bytes())

    def save_total(self, task: Task, total: Words) -> str:
        """Put the masked total of an attempt on disk and return its digest."""
        blob = save_tensors({"total": total})
        write_durably(self._path(task.round_num, task.attempt, "safetensors"), blob)
        return sha256(blob)

    def load_total(self, journal: Journal) -> Words:
        """Return the masked total that the journal names.

        Raises:
            RoundError: it is missing or damaged.
        """
        path = self._path(journal.task.round_num, journal.task.attempt, "safetensors")
        try:
            blob = path.read_bytes()
            total: Words = load_tensors(blob)["total"]
        except (OSError, SafetensorError, KeyError) as error:
            raise RoundError(f"{path} cannot be read: {error}") from error
        if sha256(blob) != journal.total:
            raise RoundError(f"{path} is not the total that was kept")
        return total.copy()

    def remove(self, round_num: int) -> None:
        """Forget a round that has its result."""
        for path in self._folder.glob(f"round-{round_num}-*"):
            path.unlink(missing_ok=True)

    def _attempts(self, round_num: int) -> list[int]:
        paths = self._folder.glob(f"round-{round_num}-*.json")
        numbers = [path.stem.rpartition("-")[2] for path in paths]
        return [int(number) for number in numbers if number.isdecimal()]

    def _load(self, request: RoundRequest) -> Journal | None:
        """Return the journal of this attempt; one that is damaged has come to its end."""
        path = self._path(request.round_num, request.attempt, "json")
        try:
            known = Journal.from_bytes(path.read_bytes()) if path.is_file() else None
        except CodecError:
            return None
        return known if known and known.task.plan_digest == request.plan_digest else None

    def _path(self, round_num: int, attempt: int, suffix: str) -> Path:
        return self._folder / f"round-{round_num}-{attempt}.{suffix}"
