"""What a silo keeps on disk between rounds, and how its agent is opened from it."""

from pathlib import Path

from fondaco.shared.workspace import Workspace

from .agent import SiloAgent, SiloHome
from .dataset_files import load_silo


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
