"""An owner's folder -> the agent that answers for it, opened anew whenever the owner changes it."""

from dataclasses import dataclass
from pathlib import Path

from fondaco.shared.codec import MAX_HEADER_BYTES, Shapes
from fondaco.shared.errors import ConfigError, RefusalError
from fondaco.shared.files import write_durably
from fondaco.shared.parts import Parts
from fondaco.shared.preflight import question_bytes
from fondaco.shared.workspace import Workspace

from .agent import SiloAgent
from .answers import answer
from .boundary.frames import MAX_MASKING, Limits
from .dataset_files import DATASET, load_silo
from .kit_files import CATALOGUE, find_catalogue, kit_file
from .loading import check_read_for
from .owner import FACTS, KEY, PEERS, Owner

MODEL = "model.fndc"


@dataclass(frozen=True)
class _Opened:
    agent: SiloAgent
    stamp: tuple[int, ...]


class DeployedAgent:
    """The agent of an owner's folder (or of a simulated silo's, whose plan says so).

    Plans come from the owner's own ledger, never from a message. A newer plan or newer rows are
    taken up at the next message.

    Args:
        home: the owner's folder.

    Raises:
        ConfigError: nothing is approved yet, or there are no rows.
        RefusalError: the owner has left, or the plan fits neither this owner nor the installed
            code.
        DataError: rows or catalogue are damaged.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._opened: _Opened | None = self._open()

    @property
    def silo_id(self) -> str:
        """The data owner's public name."""
        return self.agent.silo_id

    @property
    def agent(self) -> SiloAgent:
        """The agent, as the owner's folder now is."""
        if self._opened is None or self._stamp() != self._opened.stamp:
            self._opened = None  # what it knew goes, also where no other takes its place
            self._opened = self._open()
        return self._opened.agent

    def limits(self) -> Limits:
        """Return how large a message may be under the plan in force."""
        plan = self.agent.plan
        most = Shapes.of_plan(plan).most_bytes()
        masking = max(MAX_MASKING, question_bytes(plan))
        return Limits(record=most + MAX_HEADER_BYTES, masking=masking)

    def answer(self, action: str, parts: Parts) -> Parts:
        """Return the answer to `action`; the plan's last model is kept for recommending."""
        agent = self.agent
        said = answer(agent, action, parts)
        model = agent.model if action == "publish" else None
        if model is not None and model.after_round == len(agent.plan.releases):
            write_durably(self._home / MODEL, parts.record)
        return said

    def _open(self) -> _Opened:
        stamp = self._stamp()
        return _Opened(open_owned(self._home), stamp)

    def _stamp(self) -> tuple[int, ...]:
        """Return when the files were last replaced that decide which agent this is."""
        home, owner = self._home, Owner.open(self._home)
        own = home / KEY, home / PEERS
        watched = (home / "plans", owner.rows / DATASET, kit_file(home, CATALOGUE), *own)
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in watched)


def open_owned(home: Path) -> SiloAgent:
    """Return the agent of an owner's folder.

    Raises:
        As `DeployedAgent`.
    """
    owner = Owner.open(home)
    if not (home / FACTS).is_file():
        return _open_simulated(owner)
    plan = owner.approved()
    if plan is None:
        _check_not_left(owner)
        raise ConfigError(
            f"{owner.silo_id} has no plan in force; read and sign one with fondaco-client approve"
        )
    owner.check(plan)
    if not (owner.rows / DATASET).is_file():
        raise ConfigError(f"{owner.rows} holds no rows; read them in with fondaco-client load")
    check_read_for(owner.rows, plan)
    catalogue = find_catalogue(owner, plan)
    dataset = load_silo(owner.rows)
    if dataset.silo_id != owner.silo_id:
        raise ConfigError(f"{owner.rows} holds rows of {dataset.silo_id!r}, not {owner.silo_id!r}")
    return SiloAgent(dataset, plan, catalogue, owner.home, identity=owner.identity)


def _check_not_left(owner: Owner) -> None:
    """Say that the owner has left, which everybody may know.

    Raises:
        RefusalError: the ledger ends with a plan that was taken back.
    """
    with owner.ledger() as ledger:
        left = ledger.chain.of_type("PLAN")[-1:]
    if left:
        raise RefusalError(
            f"the owner has left: {left[0]['reason']} (fondaco-client approve joins again)", "left"
        )


def _open_simulated(owner: Owner) -> SiloAgent:
    """Return the agent of a simulated silo, with the seed that everybody knows.

    Raises:
        ConfigError: its plan is none of a simulation.
    """
    workspace = Workspace(owner.home.folder)
    plan, (_, seed) = workspace.read_plan(), workspace.read_silos()
    if plan.mode != "simulation":
        raise ConfigError(f"{workspace.folder} holds a plan for {plan.mode!r}; its keys are public")
    catalogue = workspace.read_catalogue(plan)
    return SiloAgent(load_silo(owner.rows), plan, catalogue, owner.home, seed)
