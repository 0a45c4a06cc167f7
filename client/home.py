"""Where a silo keeps its ledger and whatever it may have to show or send again."""

from dataclasses import dataclass
from pathlib import Path

from fondaco.shared.workspace import folder_name


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

    def outbox(self, kind: str, round_num: int, attempt: int) -> Path:
        """The bytes released in one round."""
        return self.sent / f"{round_num}-{kind}-{attempt}.bin"
