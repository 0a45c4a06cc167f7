"""Aggregated sums -> one global model: everything here is post-processing of releases."""

import hashlib
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fondaco.shared import codec
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import CodecError, ConfigError, ModelError
from fondaco.shared.features import item_features
from fondaco.shared.files import write_whole
from fondaco.shared.models import gram
from fondaco.shared.models.popularity import denoise_popularity
from fondaco.shared.models.terms import BUCKET_EDGES, PlannedModels
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import GlobalModel

from .checkpoint import RoundResult
from .fusion import reference_alone
from .tensors import save_tensors

SCHEMA = 2
ARRAYS = tuple(f.name for f in fields(GlobalModel) if f.type not in (str, int))


def choose_head(plan: RunPlan, popularity_total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the plan's number of items with the largest noisy popularity."""
    return gram.top_items(popularity_total.astype(np.float64), plan.head)


def joint_stddev(plan: RunPlan, result: RoundResult) -> float:
    """Return the noise in a joint release [units of a customer's contribution].

    Public: every silo that took part added the planned share.
    """
    event = plan.event_for(result.kind, result.round_num)
    return event.silo_stddev_grid * float(np.sqrt(len(result.present))) / plan.grid


def build_base(
    plan: RunPlan, catalogue: Catalogue, popularity: RoundResult, gram_result: RoundResult | None
) -> GlobalModel:
    """Return the global model of the first releases, on which iterative models stand.

    Args:
        plan: its grid, noise scale and models.
        catalogue: public item facts.
        popularity: sum over silos of the first release.
        gram_result: that of the Gram; None where the plan has none.
    """
    features = item_features(catalogue)
    noisy = popularity.total / plan.grid
    popularity_stddev = joint_stddev(plan, popularity)
    smooth = denoise_popularity(noisy, popularity_stddev, features)
    head = choose_head(plan, popularity.total)
    if gram_result is None:
        head_model = gram.without_gram(head, smooth, popularity_stddev)
    else:
        head_model = gram.denoise_gram(
            gram.unpack_gram(gram_result.total / plan.grid),
            joint_stddev(plan, gram_result),
            head=head,
            noisy_popularity=noisy,
            popularity=smooth,
            popularity_stddev=popularity_stddev,
            features=features,
        )
    left, right = gram.item_factors(head_model, features, smooth, gram.RIDGE * head_model.edge)
    n_parameters = sum(PlannedModels.of_plan(plan).n_parameters.values())
    return GlobalModel(
        plan_digest=plan.digest,
        catalogue_digest=plan.catalogue_digest,
        after_round=(gram_result or popularity).round_num,
        noisy_popularity=noisy.astype(np.float32),
        popularity=smooth.astype(np.float32),
        head=head_model.head,
        head_popularity=head_model.head_popularity.astype(np.float32),
        gram_factors=head_model.factors.astype(np.float32),
        gram_diagonal=head_model.diagonal.astype(np.float32),
        gram_top=head_model.top.astype(np.float32),
        kernel_weights=head_model.kernel_weights.astype(np.float32),
        item_in=left.astype(np.float32),
        item_out=right.astype(np.float32),
        spectrum=head_model.spectrum.astype(np.float32),
        noise_edge=np.array(head_model.edge, dtype=np.float32),
        parameters=np.zeros(n_parameters, dtype=np.float32),
        fusion=reference_alone(plan),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Artefact:
    """A global model with the plan under which it was learned."""

    model: GlobalModel
    plan: RunPlan

    def parameters_of(self, name: str, n_parameters: int) -> NDArray[np.float32] | None:
        """Return the parameters of a model, None unless it is there in this size."""
        found = PlannedModels.of_plan(self.plan).split(self.model.parameters).get(name)
        return found if found is not None and len(found) == n_parameters else None


def continue_model(plan: RunPlan, earlier: Artefact) -> GlobalModel:
    """Return the popularity and Gram parts of `earlier` as the base of `plan`.

    Raises:
        ModelError: the plan does not continue that run, or has another head.
    """
    if plan.earlier_digest != earlier.plan.digest or plan.head != earlier.plan.head:
        raise ModelError(f"plan {plan.digest[:19]} does not continue {earlier.plan.digest[:19]}")
    n_parameters = sum(PlannedModels.of_plan(plan).n_parameters.values())
    return replace(
        earlier.model,
        plan_digest=plan.digest,
        after_round=0,
        parameters=np.zeros(n_parameters, dtype=np.float32),
        fusion=reference_alone(plan),
    )


def model_digest(model: GlobalModel) -> str:
    """Return SHA-256 of the model's encoded bytes, as `sha256:...`."""
    return f"sha256:{hashlib.sha256(codec.encode(model)).hexdigest()}"


def save_global_model(model: GlobalModel, plan: RunPlan, path: Path) -> None:
    """Write `path` (safetensors) and beside it a JSON of the same name; whole or not at all.

    The JSON holds what a reader without Python wants: version, checksum, plan, what was spent,
    the catalogue's hash, every part's weights by activity bucket.
    """
    arrays = {name: np.asarray(getattr(model, name), order="C") for name in ARRAYS}
    planned = PlannedModels.of_plan(plan)
    facts = {
        "schema": SCHEMA,
        "digest": model_digest(model),
        "plan_digest": model.plan_digest,
        "catalogue_digest": model.catalogue_digest,
        "after_round": model.after_round,
        "of_rounds": len(plan.releases),
        "epsilon": f"{plan.epsilons()['epsilon']:.6f}",
        "target_delta": plan.target_delta,
        "parts": list(planned.parts),
        "activity_edges": list(BUCKET_EDGES),
        "fusion": [[round(float(weight), 6) for weight in row] for row in model.fusion],
        "n_parameters": planned.n_parameters,
        "plan": json.loads(plan.to_json()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path.with_suffix(".json"), json.dumps(facts, indent=1, sort_keys=True))
    save_tensors(arrays, path, {"facts": json.dumps(facts)})


def load_global_model(path: Path, catalogue: Catalogue | None = None) -> Artefact:
    """Return the model at `path` after checking it against its own plan.

    Args:
        path: of the safetensors file, which is complete by itself.
        catalogue: the catalogue that it will be used with.

    Raises:
        ModelError: it is missing, damaged, of another schema, or made for another catalogue.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist; a finished run has one")
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads(file.metadata()["facts"])
            if facts["schema"] != SCHEMA:
                raise ModelError(f"{path} has schema {facts['schema']}; this code reads {SCHEMA}")
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
        plan = RunPlan.from_json(json.dumps(facts["plan"]))
        model = GlobalModel(
            plan_digest=facts["plan_digest"],
            catalogue_digest=facts["catalogue_digest"],
            after_round=facts["after_round"],
            **arrays,
        )
        # The codec checks every dtype and shape against the plan.
        codec.decode(codec.encode(model), GlobalModel, Shapes.of_plan(plan))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} cannot be read as a global model: {error!r}") from error
    except (ConfigError, CodecError) as error:
        raise ModelError(f"{path} does not fit its plan: {error}") from error
    if (model_digest(model), plan.digest) != (facts.get("digest"), model.plan_digest):
        raise ModelError(f"{path} is damaged: its checksum does not fit")
    if catalogue is not None and catalogue.digest != model.catalogue_digest:
        raise ModelError(f"{path} was made for another catalogue than {catalogue.digest[:19]}")
    return Artefact(model=model, plan=plan)
