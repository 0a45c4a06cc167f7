import json
from dataclasses import fields, replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from fondaco.server.checkpoint import RoundResult
from fondaco.server.global_model import (
    build_global_model,
    choose_head,
    joint_stddev,
    load_global_model,
    model_digest,
    save_global_model,
)
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ModelError
from fondaco.shared.records import GlobalModel
from fondaco.shared.vocabulary import Vocabulary

SILOS = tuple(f"silo-{num}" for num in range(10))


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue(
        items=Vocabulary(tuple("abcde")),
        texts=("red lamp", "blue lamp", "rug", "", "red rug"),
        categories=("",) * 5,
        brands=("",) * 5,
        prices=np.full(5, np.nan),
    )


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
    return build_global_model(plan, catalogue, *rounds)


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
        if field.type is not str:
            assert np.isfinite(getattr(model, field.name)).all(), field.name
    assert (model.popularity >= 0).all()
    assert (model.head_popularity > 0).all()


def test_model_names_its_plan_and_catalogue(plan, model):
    assert (model.plan_digest, model.catalogue_digest) == (plan.digest, plan.catalogue_digest)


def test_equal_releases_give_equal_models(plan, catalogue, rounds, model):
    again = build_global_model(plan, catalogue, *rounds)
    assert model_digest(again) == model_digest(model)


def test_digest_changes_with_every_array(model):
    for field in fields(model):
        if field.type is str:
            continue
        values = getattr(model, field.name).copy()
        values.flat[0] += 1
        assert model_digest(replace(model, **{field.name: values})) != model_digest(model)


def test_a_saved_model_is_loaded_bit_for_bit(model, tmp_path):
    path = tmp_path / "deep" / "model.safetensors"
    save_global_model(model, path)
    loaded = load_global_model(path)
    assert model_digest(loaded) == model_digest(model)
    for field in fields(GlobalModel):
        one, other = getattr(loaded, field.name), getattr(model, field.name)
        assert np.array_equal(one, other), field.name
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_saving_twice_writes_the_same_bytes(model, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_global_model(model, first)
    save_global_model(model, second)
    assert first.read_bytes() == second.read_bytes()


def _rewrite(path, *, arrays=None, **facts):
    with safe_open(path, framework="numpy") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        old = json.loads(file.metadata()["facts"])
    save_file(kept | (arrays or {}), path, metadata={"facts": json.dumps(old | facts)})


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_global_model(model, path)
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
    with pytest.raises(ModelError, match=r"schema 99; this code reads 1"):
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


@pytest.mark.parametrize("name", ["plan_digest", "catalogue_digest", "digest"])
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
