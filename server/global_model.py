"""Aggregated sums -> one global model: everything here is post-processing of releases."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fondaco.shared import codec
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ModelError
from fondaco.shared.features import item_features
from fondaco.shared.models import gram
from fondaco.shared.models.popularity import denoise_popularity
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import GlobalModel

from .checkpoint import RoundResult

SCHEMA = 1


def choose_head(plan: RunPlan, popularity_total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the plan's number of items with the largest noisy popularity."""
    return gram.top_items(popularity_total.astype(np.float64), plan.head)


def joint_stddev(plan: RunPlan, result: RoundResult) -> float:
    """Return the noise in a joint release [units of a customer's contribution].

    Public: every silo that took part added the planned share.
    """
    event = plan.event_for(result.kind, result.round_num)
    return event.silo_stddev_grid * float(np.sqrt(len(result.present))) / plan.grid


def build_global_model(
    plan: RunPlan, catalogue: Catalogue, popularity: RoundResult, gram_result: RoundResult
) -> GlobalModel:
    """Return the global model of both releases and the public catalogue.

    Args:
        plan: its grid and noise scale.
        catalogue: public item facts.
        popularity: sum over silos of release 1.
        gram_result: sum over silos of release 2.
    """
    features = item_features(catalogue)
    noisy = popularity.total / plan.grid
    popularity_stddev = joint_stddev(plan, popularity)
    smooth = denoise_popularity(noisy, popularity_stddev, features)
    head_model = gram.denoise_gram(
        gram.unpack_gram(gram_result.total / plan.grid),
        joint_stddev(plan, gram_result),
        head=choose_head(plan, popularity.total),
        noisy_popularity=noisy,
        popularity=smooth,
        popularity_stddev=popularity_stddev,
        features=features,
    )
    left, right = gram.item_factors(head_model, features, smooth, gram.RIDGE * head_model.edge)
    return GlobalModel(
        plan_digest=plan.digest,
        catalogue_digest=plan.catalogue_digest,
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
    )


def model_digest(model: GlobalModel) -> str:
    """Return SHA-256 of the model's encoded bytes, as `sha256:...`."""
    return f"sha256:{hashlib.sha256(codec.encode(model)).hexdigest()}"


def save_global_model(model: GlobalModel, path: Path) -> None:
    """Write the model as safetensors with its checksum; whole or not at all."""
    arrays = {
        field.name: np.asarray(getattr(model, field.name), order="C")
        for field in fields(model)
        if field.type is not str
    }
    facts = {
        "schema": SCHEMA,
        "plan_digest": model.plan_digest,
        "catalogue_digest": model.catalogue_digest,
        "digest": model_digest(model),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    save_file(arrays, partial, metadata={"facts": json.dumps(facts)})
    partial.replace(path)


def load_global_model(path: Path) -> GlobalModel:
    """Return the model at `path`.

    Raises:
        ModelError: it is missing, damaged, or of another schema.
    """
    names = [field.name for field in fields(GlobalModel) if field.type is not str]
    try:
        with safe_open(path, framework="numpy") as file:
            schema, plan_digest, catalogue_digest, digest = _read_facts(file.metadata())
            arrays = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} cannot be read as a global model: {error!r}") from error
    if schema != SCHEMA:
        raise ModelError(f"{path} has schema {schema}; this code reads {SCHEMA}")
    model = GlobalModel(plan_digest=plan_digest, catalogue_digest=catalogue_digest, **arrays)
    if model_digest(model) != digest:
        raise ModelError(f"{path} is damaged: its checksum does not fit")
    return model


def _read_facts(metadata: Mapping[str, str]) -> tuple[int, str, str, str]:
    facts = json.loads(metadata["facts"])
    return facts["schema"], facts["plan_digest"], facts["catalogue_digest"], facts["digest"]
