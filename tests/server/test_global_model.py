import json
from dataclasses import fields, replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from fondaco.server.checkpoint import RoundResult
from fondaco.server.global_model import (
    build_base,
    choose_head,
    joint_stddev,
    load_global_model,
    model_digest,
    save_global_model,
)
from fondaco.shared.errors import ModelError
from fondaco.shared.models import MODELS, Sizes
from fondaco.shared.models.autoencoder import AutoencoderTerms
from fondaco.shared.records import GlobalModel

SILOS = tuple(f"silo-{num}" for num in range(10))


def _round(plan, kind, round_num, values, present=SILOS):
    total = (np.array(values) * plan.grid).astype(np.int64)
    return RoundResult(kind=kind, round_num=round_num, total=total, present=present, dropped=())


@pytest.fixture(scope="module")
def rounds(plan):
    popularity = _round(plan, "popularity", 1, [60.0, 50.0, 40.0, 5.0, 30.0])
    gram = _round(plan, "gram", 2, [30, 25, 20, 15, 4, 3, 2, 9, 1, 5])
    return popularity, gram


@pytest.fixture(scope="module")
def model(plan, catalogue, rounds):
    return build_base(plan, catalogue, *rounds)


def test_head_is_the_most_popular_items_best_first(plan, rounds):
    assert choose_head(plan, rounds[0].total).tolist() == [0, 1, 2, 4]


def test_noise_of_a_release_grows_with_the_silos_that_took_part(plan, rounds):
    everyone = rounds[0]
    four = replace(everyone, present=SILOS[:4])
    share = plan.event_for("popularity", 1).silo_stddev_grid / plan.grid
    assert joint_stddev(plan, everyone) == pytest.approx(share * np.sqrt(10))
    assert joint_stddev(plan, four) == pytest.approx(2 * share)


def test_model_has_the_shapes_of_the_plan_and_is_finite(plan, model):
    assert model.head.tolist() == [0, 1, 2, 4]
    assert (model.item_in.shape[0], model.item_out.shape[0]) == (plan.head, plan.n_items)
    for field in fields(model):
        if field.type not in (str, int):
            assert np.isfinite(getattr(model, field.name)).all(), field.name
    assert (model.popularity >= 0).all()
    assert (model.head_popularity > 0).all()


def test_model_names_its_plan_and_catalogue(plan, model):
    assert (model.plan_digest, model.catalogue_digest) == (plan.digest, plan.catalogue_digest)


def test_equal_releases_give_equal_models(plan, catalogue, rounds, model):
    again = build_base(plan, catalogue, *rounds)
    assert model_digest(again) == model_digest(model)


def test_digest_changes_with_every_array(model):
    assert model.parameters.shape == (0,)
    model = replace(model, parameters=np.ones(3, dtype=np.float32))
    for field in fields(model):
        if field.type in (str, int):
            continue
        values = getattr(model, field.name).copy()
        values.flat[0] += 1
        assert model_digest(replace(model, **{field.name: values})) != model_digest(model)


def test_a_saved_model_is_loaded_bit_for_bit(model, tmp_path, plan):
    path = tmp_path / "deep" / "model.safetensors"
    save_global_model(model, plan, path)
    artefact = load_global_model(path)
    loaded = artefact.model
    assert artefact.plan == plan
    assert model_digest(loaded) == model_digest(model)
    for field in fields(GlobalModel):
        one, other = getattr(loaded, field.name), getattr(model, field.name)
        assert np.array_equal(one, other), field.name
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.json", "model.safetensors"]


def test_saving_twice_writes_the_same_bytes(model, tmp_path, plan):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_global_model(model, plan, first)
    save_global_model(model, plan, second)
    assert first.read_bytes() == second.read_bytes()


def _rewrite(path, *, arrays=None, **facts):
    with safe_open(path, framework="numpy") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        old = json.loads(file.metadata()["facts"])
    save_file(kept | (arrays or {}), path, metadata={"facts": json.dumps(old | facts)})


@pytest.fixture
def saved(model, plan, tmp_path):
    path = tmp_path / "model.safetensors"
    save_global_model(model, plan, path)
    return path


def test_an_altered_number_is_refused(saved, model):
    changed = model.popularity.copy()
    changed[2] += 0.5
    _rewrite(saved, arrays={"popularity": changed})
    with pytest.raises(ModelError, match="checksum"):
        load_global_model(saved)


def test_a_model_moved_to_another_plan_is_refused(saved):
    _rewrite(saved, plan_digest="sha256:another")
    with pytest.raises(ModelError, match="checksum"):
        load_global_model(saved)


def test_another_schema_is_refused_by_number(saved):
    _rewrite(saved, schema=99)
    with pytest.raises(ModelError, match=r"schema 99; this code reads 2"):
        load_global_model(saved)


@pytest.mark.parametrize("size", [0, 7, 200])
def test_a_torn_file_is_refused(saved, size):
    saved.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(ModelError, match="cannot be read"):
        load_global_model(saved)


def test_a_file_without_facts_is_refused(tmp_path, model):
    path = tmp_path / "m.safetensors"
    save_file({"popularity": model.popularity}, path)
    with pytest.raises(ModelError, match="cannot be read"):
        load_global_model(path)


@pytest.mark.parametrize(
    "name", ["plan_digest", "catalogue_digest", "digest", "after_round", "plan", "schema"]
)
def test_a_missing_fact_is_refused(saved, name):
    with safe_open(saved, framework="numpy") as file:
        kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()["facts"])
    del facts[name]
    save_file(kept, saved, metadata={"facts": json.dumps(facts)})
    with pytest.raises(ModelError):
        load_global_model(saved)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.safetensors"):
        load_global_model(tmp_path / "gone.safetensors")


def test_another_catalogue_is_refused(saved, catalogue):
    assert load_global_model(saved, catalogue).model.catalogue_digest == catalogue.digest
    with pytest.raises(ModelError, match="another catalogue"):
        load_global_model(saved, replace(catalogue, brands=("b",) * 5))


SHAPES = {
    "popularity": (4,),
    "head": (3,),
    "gram_factors": (5, 1),
    "item_out": (5,),
    "parameters": (1,),
    "fusion": (4, 3),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_that_the_plan_does_not_give_is_refused(saved, name):
    dtype = np.int64 if name == "head" else np.float32
    _rewrite(saved, arrays={name: np.zeros(SHAPES[name], dtype=dtype)})
    with pytest.raises(ModelError, match=f"does not fit its plan: .*{name}"):
        load_global_model(saved)


def test_a_number_that_is_not_finite_is_refused(saved, model):
    _rewrite(saved, arrays={"popularity": np.full_like(model.popularity, np.nan)})
    with pytest.raises(ModelError, match="not finite"):
        load_global_model(saved)


def test_a_plan_that_was_changed_is_refused(saved, plan):
    changed = json.loads(plan.to_json()) | {"public": {"split": "2012-01-01"}}
    _rewrite(saved, plan=changed)
    with pytest.raises(ModelError, match="checksum"):
        load_global_model(saved)


def test_a_plan_that_costs_more_than_it_says_is_refused(saved, plan):
    changed = json.loads(plan.to_json()) | {"target_epsilon": "0.5"}
    _rewrite(saved, plan=changed)
    with pytest.raises(ModelError, match=r"does not fit its plan: .*epsilon"):
        load_global_model(saved)


def test_readers_without_python_find_plan_spending_and_weights(saved, model, plan):
    facts = json.loads(saved.with_suffix(".json").read_text(encoding="utf-8"))
    assert facts["digest"] == model_digest(model)
    assert (facts["plan_digest"], facts["catalogue_digest"]) == (plan.digest, plan.catalogue_digest)
    assert float(facts["epsilon"]) == pytest.approx(plan.epsilons()["epsilon"], abs=1e-6)
    assert facts["parts"] == ["gram", "popularity"]
    assert facts["fusion"] == [[1.0, 0.0]] * 4
    assert facts["plan"]["releases"][0]["kind"] == "popularity"


def test_model_without_a_gram_knows_popularity_alone(plan, catalogue, rounds, make_plan):
    alone = make_plan([("popularity", 1, 5)], models={"autoencoder": AutoencoderTerms().as_text()})
    model = build_base(alone, catalogue, rounds[0], None)
    assert model.gram_factors.shape == (4, 0)
    assert model.head.tolist() == [0, 1, 2, 4]
    assert not model.spectrum.any()
    count = MODELS["autoencoder"].n_parameters(AutoencoderTerms(), Sizes(n_items=5, head=4))
    assert model.parameters.shape == (count,)
    assert model.after_round == 1
