"""What the coordinator keeps of a masked sum while it is under way."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from fondaco.shared import codec
from fondaco.shared.errors import CodecError, RoundError
from fondaco.shared.records import RoundRequest
from fondaco.shared.secagg.checks import LIFETIME_S
from fondaco.shared.secagg.messages import Message, Task
from fondaco.shared.workspace import write_durably

from .rounds import sha256

Words = NDArray[np.uint32] | NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Journal(Message):
    """How far a masked sum has come; empty parts have not been decided yet.

    Attributes:
        aborted: why it was given up, "" if it was not.
        dropped: silo -> why it is not in the sum.
        roster: the encoded `Roster`.
        shares: the encoded `Shares` of all participants.
        survivors: whose numbers are in the total.
        total: SHA-256 of the file that holds the masked total.
        certificate: the encoded `Certificate`.
    """

    task: Task
    aborted: str = ""
    dropped: Mapping[str, str]
    roster: bytes = b""
    shares: tuple[bytes, ...] = ()
    survivors: tuple[str, ...] = ()
    total: str = ""
    certificate: bytes = b""


class Journals:
    """The journals of one plan's rounds in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, request: RoundRequest) -> tuple[RoundRequest, Journal]:
        """Return the attempt that was under way, or a new one; `request` then bears its number.

        Raises:
            RoundError: the journal is damaged.
        """
        known = self._load(request.round_num)
        if known is not None:
            request = replace(request, attempt=known.task.attempt)
            same = known.task.request == sha256(codec.encode(request))
            if same and not known.aborted and time.time() < known.task.expires:
                return request, known
            request = replace(request, attempt=known.task.attempt + 1)
        task = Task(
            plan_digest=request.plan_digest,
            run_id=secrets.token_hex(16),
            kind=request.kind,
            round_num=request.round_num,
            attempt=request.attempt,
            request=sha256(codec.encode(request)),
            expires=int(time.time()) + LIFETIME_S,
        )
        journal = Journal(task=task, dropped={})
        self.save(journal)
        return request, journal

    def save(self, journal: Journal) -> None:
        """Put a journal on disk."""
        write_durably(self._path(journal.task.round_num, "json"), journal.to_bytes())

    def save_total(self, round_num: int, total: Words) -> str:
        """Put the masked total of a round on disk and return its digest."""
        blob = save_tensors({"total": total})
        write_durably(self._path(round_num, "safetensors"), blob)
        return sha256(blob)

    def load_total(self, journal: Journal) -> Words:
        """Return the masked total that the journal names.

        Raises:
            RoundError: it is missing or damaged.
        """
        path = self._path(journal.task.round_num, "safetensors")
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
        for suffix in ("json", "safetensors"):
            self._path(round_num, suffix).unlink(missing_ok=True)

    def _load(self, round_num: int) -> Journal | None:
        path = self._path(round_num, "json")
        try:
            return Journal.from_bytes(path.read_bytes()) if path.is_file() else None
        except CodecError as error:
            raise RoundError(f"{path} is damaged: {error}") from error

    def _path(self, round_num: int, suffix: str) -> Path:
        return self._folder / f"round-{round_num}.{suffix}"
