"""Where a run keeps what both ends read: plan, catalogue, silos, seed."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .catalogue import Catalogue, load_catalogue, save_catalogue
from .errors import ConfigError
from .files import folder_name, write_durably
from .privacy.plan import RunPlan

SCHEMA = 1


@dataclass(frozen=True)
class Workspace:
    """The folder of one run, simulated or of a coordinator.

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
            if self._facts() != facts:
                raise ConfigError(
                    f"{self.folder} holds another run (other settings, data or code); "
                    "choose another --out folder or remove it"
                )
            return
        write_durably(self.folder / "plan.json", plan.to_json().encode())
        partial = self.folder / "catalogue.part"
        save_catalogue(catalogue, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(self.folder / "catalogue.json")
        # last: it says that the others are there
        write_durably(path, json.dumps(facts).encode())

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
            ConfigError: the folder was not prepared, or its file is damaged.
        """
        facts = self._facts()
        return list(facts["silos"]), int(facts["seed"])

    def _facts(self) -> dict[str, Any]:
        try:
            facts = json.loads(self._read("run.json"))
        except ValueError:
            facts = None
        if not isinstance(facts, dict) or not {"silos", "seed"} <= facts.keys():
            path = self.folder / "run.json"
            raise ConfigError(f"{path} is damaged; remove it and give the command again")
        return facts

    def _read(self, name: str) -> str:
        path = self.folder / name
        if not path.is_file():
            raise ConfigError(
                f"{path} does not exist; prepare it with fondaco-simulate prepare (a coordinator: "
                "with fondaco-server run)"
            )
        return path.read_text(encoding="utf-8")
