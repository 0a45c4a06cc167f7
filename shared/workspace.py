"""Where a simulation keeps what both ends read: plan, catalogue, silos, seed."""

import json
from dataclasses import dataclass
from pathlib import Path

from .catalogue import Catalogue, load_catalogue, save_catalogue
from .errors import ConfigError
from .files import folder_name, write_whole
from .privacy.plan import RunPlan

SCHEMA = 1


@dataclass(frozen=True)
class Workspace:
    """The folder of one simulated run.

    `plan.json`, `catalogue.json` and `run.json` are written once by `prepare`; `silos/` holds
    each silo's data (only where processes other than the simulation's need it, or with
    `--keep-silos`), `ledgers/` each silo's ledger, `witness/` the coordinator's replicas of them
    and their co-signed heads, `checkpoints/` the finished rounds, `journals/` the masked sum under
    way, `sessions/` what the silos keep of it, `model.safetensors` the global model.
    """

    folder: Path

    @property
    def checkpoints(self) -> Path:
        """Finished rounds."""
        return self.folder / "checkpoints"

    @property
    def journals(self) -> Path:
        """Masked sums that are under way."""
        return self.folder / "journals"

    @property
    def model(self) -> Path:
        """The global model."""
        return self.folder / "model.safetensors"

    @property
    def witness(self) -> Path:
        """What the coordinator knows of the silos' ledgers."""
        return self.folder / "witness"

    def silo(self, silo_id: str) -> Path:
        """The folder of one silo's data and personal model."""
        return self.folder / "silos" / folder_name(silo_id)

    def prepare(self, plan: RunPlan, catalogue: Catalogue, silo_ids: list[str], seed: int) -> None:
        """Write what both ends read; a folder prepared for the same plan is left as it is.

        Raises:
            ConfigError: the folder belongs to another run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = {"schema": SCHEMA, "plan": plan.digest, "silos": silo_ids, "seed": seed}
        path = self.folder / "run.json"
        if path.is_file():
            if _facts(path) != facts:
                raise ConfigError(
                    f"{self.folder} holds another run (other settings, data or code); "
                    "choose another --out folder or remove it"
                )
            return
        write_whole(self.folder / "plan.json", plan.to_json())
        partial = self.folder / "catalogue.part"
        save_catalogue(catalogue, partial)
        partial.replace(self.folder / "catalogue.json")
        write_whole(path, json.dumps(facts))  # last: it says that the others are there

    def read_plan(self) -> RunPlan:
        """Return the plan.

        Raises:
            ConfigError: the folder was not prepared, or its plan cannot be read.
        """
        return RunPlan.from_json(self._read("plan.json"))

    def read_catalogue(self, plan: RunPlan) -> Catalogue:
        """Return the catalogue that `plan` names.

        Raises:
            DataError: it is missing or another one.
        """
        return load_catalogue(self.folder / "catalogue.json", plan.catalogue_digest)

    def read_silos(self) -> tuple[list[str], int]:
        """Return the silo ids in order, and the seed.

        Raises:
            ConfigError: the folder was not prepared.
        """
        facts = json.loads(self._read("run.json"))
        return list(facts["silos"]), int(facts["seed"])

    def _read(self, name: str) -> str:
        path = self.folder / name
        if not path.is_file():
            raise ConfigError(f"{path} does not exist; prepare it with fondaco-simulate prepare")
        return path.read_text(encoding="utf-8")


def _facts(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}); choose another --out folder") from error
