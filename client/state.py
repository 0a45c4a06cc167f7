"""What a silo keeps on disk between rounds, and how its agent and recommender are opened."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fondaco.shared import codec
from fondaco.shared.catalogue import Catalogue, load_catalogue, save_catalogue
from fondaco.shared.codec import Shapes
from fondaco.shared.config import FusionConfig, build, read_toml
from fondaco.shared.errors import CodecError, ConfigError, DataError, ModelError
from fondaco.shared.models import PublicFacts
from fondaco.shared.models.published import GlobalParts
from fondaco.shared.models.terms import PlannedModels
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import GlobalModel
from fondaco.shared.workspace import Workspace

from .agent import SiloAgent
from .dataset import SiloDataset
from .dataset_files import DATASET, load_silo, whole_folder, write_silo
from .deployed import MODEL
from .erasure import Erasures
from .home import SiloHome
from .kit_files import catalogue_of, find_catalogue
from .loading import ReadFor
from .owner import Owner
from .serving import fit_recommender
from .serving.lists import SiloState
from .serving.recount import recounted

MODEL_FILE = "global-model.fndc"
PLAN_FILE = "plan.json"
CATALOGUE_FILE = "catalogue.json"
SERVING_FILE = "serving.json"
KNOBS_FILE = "serving.toml"
HEADLINE = "ndcg@20"
"""Tuned for where a plan names no metric."""


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
    if plan.mode != "simulation":
        raise ConfigError(f"{folder} holds a plan for {plan.mode!r}; only an owner may open that")
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


def open_serving(folder: Path) -> SiloState:
    """Return the recommender of an owner's folder, or of a simulated silo's.

    Raises:
        ConfigError: the folder is neither.
        As `open_state` and `open_owner_state`.
    """
    if (folder / SERVING_FILE).is_file():
        return open_state(folder)
    return open_owner_state(Owner.open(folder))


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
    model = _read_model(folder / MODEL_FILE, plan)
    return _fitted(dataset, catalogue, plan, model, serving)


def open_owner_state(owner: Owner) -> SiloState:
    """Return an owner's recommender: own rows, and the model that the agent received last.

    The model may be of an earlier plan than the one in force: an owner goes on recommending
    while the next model is learned, and after leaving. Knobs come from `serving.toml`, if
    there is one.

    Raises:
        ConfigError: the knobs cannot be read.
        DataError: there are no rows, or they count other items than the model.
        ModelError: no model has come yet, or it is none of a plan that this owner approved.
    """
    plan, model = _owned_model(owner)
    catalogue = find_catalogue(owner, plan)
    dataset = _owned_rows(owner, catalogue)
    if dataset.n_items != len(catalogue):
        raise DataError(
            f"{owner.rows} counts {dataset.n_items} items, everybody's model {len(catalogue)}; "
            "read the rows in again with fondaco-client load"
        )
    if owner.home.erased.is_file():
        dataset = Erasures(owner.home.erased, owner.home.secret(owner.identity)).kept(dataset)
    path = owner.folder / KNOBS_FILE
    knobs = build(FusionConfig, read_toml(path) if path.is_file() else {}, f"{KNOBS_FILE}: ")
    repeats = plan.public.get("repeats") == "yes"
    facts = serving_facts(knobs, plan.public.get("headline", HEADLINE), keep_repeats=repeats)
    return _fitted(dataset, catalogue, plan, model, facts)


def _owned_rows(owner: Owner, catalogue: Catalogue) -> SiloDataset:
    """Return the owner's rows, counted by `catalogue` whichever they were read for."""
    if not (owner.rows / DATASET).is_file():
        raise DataError(f"{owner.rows} holds no rows; read them in with fondaco-client load")
    dataset = load_silo(owner.rows)
    read_for = ReadFor.of_rows(owner.rows)
    if read_for is None or read_for.catalogue_digest == catalogue.digest:
        return dataset
    return recounted(dataset, catalogue_of(owner.folder, read_for.catalogue_digest), catalogue)


def _owned_model(owner: Owner) -> tuple[RunPlan, GlobalModel]:
    """Return the newest global model and the plan that it belongs to."""
    path = owner.folder / MODEL
    if not path.is_file():
        raise ModelError(
            f"{path} does not exist: everybody's model has not come here yet. It comes at the end "
            "of a run; see fondaco-client status"
        )
    blob = path.read_bytes()
    with owner.ledger() as ledger:
        signed = {r["plan_digest"]: r["plan"] for r in ledger.chain.of_type("PLAN")}
    for body in reversed(signed.values()):
        plan = RunPlan.from_json(json.dumps(body))
        try:
            model = codec.decode(blob, GlobalModel, Shapes.of_plan(plan))
        except CodecError:
            continue  # of another plan's shapes, or damaged: the next tells
        if model.plan_digest == plan.digest:
            return plan, model
    raise ModelError(
        f"{path} is damaged, or of none of the {len(signed)} plans that this owner approved; the "
        "next run brings a new one"
    )


def _fitted(
    dataset: SiloDataset,
    catalogue: Catalogue,
    plan: RunPlan,
    model: GlobalModel,
    serving: Mapping[str, Any],
) -> SiloState:
    if "declared_users" not in plan.public:
        raise ConfigError("the plan declares no number of customers (public.declared_users)")
    repeats = bool(serving["keep_repeats"])
    recommender = fit_recommender(
        dataset,
        catalogue,
        GlobalParts(PlannedModels.of_plan(plan), PublicFacts(catalogue=catalogue, model=model)),
        build(FusionConfig, serving["fusion"], "fusion."),
        metric=serving["metric"],
        declared_users=int(plan.public["declared_users"]),
        repeats=repeats,
    )
    return SiloState(
        dataset=dataset, catalogue=catalogue, recommender=recommender, keep_repeats=repeats
    )


def _read_model(path: Path, plan: RunPlan) -> GlobalModel:
    if not path.is_file():
        raise ModelError(f"{path} does not exist; this silo has not received the global model")
    return codec.decode(path.read_bytes(), GlobalModel, Shapes.of_plan(plan))
