"""What a silo keeps on disk between rounds, and how its agent and recommender are opened."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.shared import codec
from fondaco.shared.catalogue import Catalogue, load_catalogue, save_catalogue
from fondaco.shared.codec import Shapes
from fondaco.shared.config import FusionConfig, build
from fondaco.shared.errors import ConfigError, DataError, ModelError
from fondaco.shared.metrics import rank_topk
from fondaco.shared.models import PublicFacts
from fondaco.shared.models.published import GlobalParts, never_ranked
from fondaco.shared.models.terms import PlannedModels
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import GlobalModel
from fondaco.shared.workspace import Workspace

from .agent import SiloAgent
from .dataset import Fold, Rows, SiloDataset, as_timelines
from .dataset_files import load_silo, whole_folder, write_silo
from .home import SiloHome
from .serving import PARTS, Recommender, fit_recommender

MODEL_FILE = "global-model.fndc"
PLAN_FILE = "plan.json"
CATALOGUE_FILE = "catalogue.json"
SERVING_FILE = "serving.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class SiloState:
    """A silo that can recommend: its rows, everybody's model, its mix.

    Attributes:
        keep_repeats: whether items that a customer has may be recommended again.
    """

    dataset: SiloDataset
    catalogue: Catalogue
    recommender: Recommender
    keep_repeats: bool

    @property
    def silo_id(self) -> str:
        """The data owner's public name."""
        return self.dataset.silo_id

    def recommend(self, user_id: str, n: int) -> list[dict[str, Any]]:
        """Return up to `n` items with score and what each part gave, best first.

        Raises:
            DataError: the silo has no such customer.
        """
        fold = self._everything_about(user_id)
        explained = self.recommender.score(fold, self.dataset.known)
        timelines = as_timelines(self.dataset, fold.user_nums, fold.history, math.inf)
        mask = csr_matrix(never_ranked(timelines, repeats=self.keep_repeats))
        items = [int(item) for item in rank_topk(explained.scores, mask, n)[0] if item >= 0]
        return [
            {
                "item_id": self.catalogue.items.ids[item],
                "text": self.catalogue.texts[item],
                "score": round(float(explained.scores[0, item]), 4),
                **{part: round(float(explained.parts[part][0, item]), 4) for part in PARTS},
            }
            for item in items
        ]

    def _everything_about(self, user_id: str) -> Fold:
        nums = np.flatnonzero(self.dataset.user_ids == user_id)
        if not len(nums):
            raise DataError(f"silo {self.silo_id!r} has no customer {user_id!r}")
        parts = (self.dataset.train, *_known(self.dataset.valid), *_known(self.dataset.test))
        rows = [_rows_of(part, int(nums[0])) for part in parts]
        history = Rows(
            user_nums=np.concatenate([part.user_nums for part in rows]),
            item_nums=np.concatenate([part.item_nums for part in rows]),
            times=np.concatenate([part.times for part in rows]),
        )
        nobody: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        targets = Rows(user_nums=nobody, item_nums=nobody, times=np.empty(0))
        return Fold(user_nums=nums[:1].astype(np.int64), history=history, targets=targets)


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
    plan = workspace.read_plan()
    catalogue = workspace.read_catalogue(plan)
    return SiloAgent(dataset, plan, catalogue, SiloHome(folder, silo_id), seed)


def save_state(
    agent: SiloAgent, catalogue: Catalogue, serving: Mapping[str, Any], folder: Path
) -> None:
    """Keep what `open_state` needs, whole or not at all.

    Args:
        agent: it has received the global model.
        catalogue: the public items.
        serving: `fusion`, `metric` and `keep_repeats`, as `serving_facts` gives them.
        folder: the silo's own.

    Raises:
        ConfigError: the agent has not received a model yet.
    """
    if agent.model is None:
        raise ConfigError(f"{agent.silo_id} has no global model yet")
    with whole_folder(folder) as partial:
        write_silo(agent.dataset, partial)
        (partial / PLAN_FILE).write_text(agent.plan.to_json(), encoding="utf-8")
        (partial / MODEL_FILE).write_bytes(codec.encode(agent.model))
        (partial / SERVING_FILE).write_text(json.dumps(serving), encoding="utf-8")
        save_catalogue(catalogue, partial / CATALOGUE_FILE)


def serving_facts(fusion: FusionConfig, metric: str, *, keep_repeats: bool) -> dict[str, Any]:
    """Return the knobs that a silo's recommender needs, as plain values."""
    return {"fusion": asdict(fusion), "metric": metric, "keep_repeats": keep_repeats}


def open_state(folder: Path) -> SiloState:
    """Return a silo's recommender, fitted on its rows and tuned on its validation rows.

    Raises:
        DataError: the folder holds no silo, or its files are damaged.
        ModelError: the global model is missing or damaged.
    """
    if not (folder / SERVING_FILE).is_file():
        raise DataError(
            f"{folder} holds no silo; make one with fondaco-simulate run SCENARIO --keep-silos"
        )
    dataset = load_silo(folder)
    plan = RunPlan.from_json((folder / PLAN_FILE).read_text(encoding="utf-8"))
    catalogue = load_catalogue(folder / CATALOGUE_FILE, plan.catalogue_digest)
    serving = json.loads((folder / SERVING_FILE).read_text(encoding="utf-8"))
    knobs = build(FusionConfig, serving["fusion"], "fusion.")
    facts = PublicFacts(catalogue=catalogue, model=_read_model(folder / MODEL_FILE, plan))
    recommender = fit_recommender(
        dataset,
        catalogue,
        GlobalParts(PlannedModels.of_plan(plan), facts),
        knobs,
        metric=serving["metric"],
        declared_users=int(plan.public["declared_users"]),
        repeats=bool(serving["keep_repeats"]),
    )
    return SiloState(
        dataset=dataset,
        catalogue=catalogue,
        recommender=recommender,
        keep_repeats=bool(serving["keep_repeats"]),
    )


def _read_model(path: Path, plan: RunPlan) -> GlobalModel:
    if not path.is_file():
        raise ModelError(f"{path} does not exist; this silo has not received the global model")
    return codec.decode(path.read_bytes(), GlobalModel, Shapes.of_plan(plan))


def _known(fold: Fold) -> Sequence[Rows]:
    """Rows of a fold; by the time of serving its targets are history too."""
    return fold.history, fold.targets


def _rows_of(rows: Rows, user_num: int) -> Rows:
    mine = rows.user_nums == user_num
    return Rows(
        user_nums=rows.user_nums[mine], item_nums=rows.item_nums[mine], times=rows.times[mine]
    )
