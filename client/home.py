"""Where a silo keeps its ledger and whatever it may have to show or send again."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fondaco.shared.chain.keys import Identity
from fondaco.shared.workspace import folder_name, write_durably


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
        """Return the owner's secret for keyed hashes; it stays when the key is rotated."""
        path = self.folder / "secrets" / f"{self._name}.key"
        if not path.is_file():
            write_durably(path, identity.secret("keyed-hashes"))
        return path.read_bytes()

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

    def outbox(self, kind: str, round_num: int, attempt: int) -> Path:
        """The bytes released in one round."""
        return self.sent / f"{round_num}-{kind}-{attempt}.bin"
