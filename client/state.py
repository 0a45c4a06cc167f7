"""What a silo keeps on disk between rounds, and how its agent is opened from it."""

from pathlib import Path

from fondaco.shared import codec
from fondaco.shared.errors import ConfigError
from fondaco.shared.workspace import Workspace

from .agent import SiloAgent, SiloHome
from .dataset_files import load_silo, save_silo

MODEL_FILE = "global-model.fndc"


def open_agent(folder: Path, num: int) -> SiloAgent:
    """Return the agent of silo number `num` of a prepared simulation.

    Raises:
        ConfigError: the workspace was not prepared.
        DataError: the silo's files are missing or damaged.
    """
    workspace = Workspace(folder)
    silo_ids, seed = workspace.read_silos()
    silo_id = silo_ids[num]
    dataset = load_silo(workspace.silo(silo_id))
    return SiloAgent(dataset, workspace.read_plan(), SiloHome(folder, silo_id), seed)


def save_agent(agent: SiloAgent, folder: Path) -> None:
    """Keep a silo's data and everybody's model, for `fondaco-client recommend`.

    Raises:
        ConfigError: the agent has not received a model yet.
    """
    if agent.model is None:
        raise ConfigError(f"{agent.silo_id} has no global model yet")
    save_silo(agent.dataset, folder)
    (folder / MODEL_FILE).write_bytes(codec.encode(agent.model))
