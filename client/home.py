"""Where a silo keeps its ledger and whatever it may have to show or send again."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fondaco.shared.chain.keys import Identity
from fondaco.shared.chain.store import is_begun
from fondaco.shared.errors import BudgetError, ConfigError, RefusalError
from fondaco.shared.files import folder_name, write_durably
from fondaco.shared.privacy.ledger import Debit, Ledger


@dataclass(frozen=True)
class SiloHome:
    """One silo's files in a folder that several may share."""

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
    def session(self) -> Path:
        """The secrets of the masked sum that is under way."""
        return self.folder / "sessions" / f"{self._name}.json"

    @property
    def opened(self) -> Path:
        """A marker: the ledger has been in use and must never be begun again."""
        return self.sent / "opened"

    @property
    def erased(self) -> Path:
        """The list of customers who must not be read in again."""
        return self.folder / "erased" / f"{self._name}.txt"

    @property
    def replicas(self) -> Path:
        """The folder of other silos' records that this one has co-signed."""
        return self.folder / "replicas" / self._name

    @property
    def sent(self) -> Path:
        """The folder of everything released."""
        return self.folder / "outbox" / self._name

    def secret(self, identity: Identity) -> bytes:
        """Return the owner's secret for keyed hashes; it stays when the key is rotated.

        Raises:
            ConfigError: it is gone, and the present key would make another one.
        """
        path = self.folder / "secrets" / f"{self._name}.key"
        if not path.is_file():
            if self._was_rotated(identity):
                raise ConfigError(
                    f"{path} is gone, and the present key may make another one: without it "
                    "erased customers would come back; bring it back from a backup"
                )
            write_durably(path, identity.secret("keyed-hashes"))
        return path.read_bytes()

    def _was_rotated(self, identity: Identity) -> bool:
        """Return whether hashes are in use that an earlier key of this owner's may have made."""
        if not is_begun(self.ledger):
            return self.erased.is_file()  # lost as well: nobody knows
        with Ledger(self.ledger, identity) as ledger:
            used = self.erased.is_file() or ledger.chain.of_type("DEBIT")
            return bool(used and ledger.chain.of_type("KEYROT"))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for this silo's other programs: two at once would overwrite each other's files."""
        self.sent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.sent / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def check_mark(self, size: int) -> None:
        """Refuse a ledger of `size` records from which more has been released than it shows.

        The mark lies beside the outbox, so a ledger alone cannot be put back.

        Raises:
            RefusalError: records of releases are missing.
        """
        if size < self._mark():
            raise RefusalError(
                f"numbers left under record {self._mark()} of this ledger, which has {size}; "
                "restore it or take its records back from a peer",
                "behind",
            )

    def mark(self, seq: int) -> None:
        """Put down, before the bytes leave, which record says that they were released."""
        if seq > self._mark():
            write_durably(self.sent / "mark", str(seq).encode())

    def _mark(self) -> int:
        path = self.sent / "mark"
        return int(path.read_text(encoding="ascii")) if path.is_file() else 0

    def sent_before(self, debit: Debit) -> bytes:
        """Return the bytes that were released under `debit`.

        Raises:
            BudgetError: they are gone.
        """
        event = debit.event
        path = self.outbox(event.kind, event.round_num, debit.attempt)
        blob = path.read_bytes() if path.is_file() else b""
        if f"sha256:{hashlib.sha256(blob).hexdigest()}" != debit.released:
            raise BudgetError(
                f"{event.kind} of round {event.round_num} was released and its bytes are gone; "
                "releasing again would spend the budget twice",
                "bytes-gone",
            )
        return blob

    def outbox(self, kind: str, round_num: int, attempt: int) -> Path:
        """The bytes released in one round."""
        return self.sent / f"{round_num}-{kind}-{attempt}.bin"
