"""A run that learns a Gram and a network: killed and resumed, with local steps, on both engines."""

import json
import sqlite3
from collections import Counter

import pytest

from fondaco.shared.models import MODELS, Sizes
from fondaco.shared.models.autoencoder import AutoencoderTerms

ROUNDS = 4
TWO_MODELS = (
    'models=["gram","autoencoder"]',
    f"autoencoder.rounds={ROUNDS}",
    "autoencoder.width=4",
    "autoencoder.items=16",
)
KINDS = ["popularity", "gram", *["autoencoder"] * ROUNDS, "fusion"]
KILLS = {
    "between two rounds": ("fondaco.server.checkpoint", "Checkpoints.save", 4),
    "written, not recorded": ("fondaco.shared.privacy.ledger", "Ledger.record_release", 15),
    "debited, nothing written": ("fondaco.client.agent", "release", 14),
    "while learning": ("fondaco.server.learning", "Learner.absorb", 3),
    "while publishing what was learned": ("fondaco.client.agent", "SiloAgent.receive", 6),
    "in the fusion round": ("fondaco.client.training", "fusion_gains", 2),
}


def _set(settings):
    return [part for setting in settings for part in ("--set", setting)]


def _debits(folder):
    """Silo -> [kind] of every debit, in order."""
    found = {}
    for path in sorted((folder / "ledgers").glob("*.db")):
        with sqlite3.connect(path) as db:
            bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM records")]
        db.close()
        found[path.stem] = [body["kind"] for body in bodies if body["type"] == "DEBIT"]
    return found


def _result(folder):
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def command(tiny):
    return ("run", "synthetic", *tiny, *_set(TWO_MODELS))


@pytest.fixture(scope="module")
def learned(simulate, command, tmp_path_factory):
    """The folder of a finished run of both models; no test may change it."""
    out = tmp_path_factory.mktemp("learned") / "out"
    done = simulate(*command, "--out", out)
    assert done.code == 0, done.err
    return out


def test_every_silo_pays_once_for_every_round(learned):
    found = _debits(learned)
    assert len(found) == 4
    assert all(kinds == KINDS for kinds in found.values())


def test_result_shows_what_each_model_costs_and_weighs(learned):
    models = _result(learned)["models"]
    assert list(models) == ["gram", "autoencoder"]
    terms, sizes = AutoencoderTerms(width=4, items=16), Sizes(n_items=50, head=16)
    assert models["autoencoder"]["n_params"] == MODELS["autoencoder"].n_parameters(terms, sizes)
    assert sum(facts["epsilon_share"] for facts in models.values()) == pytest.approx(0.87)
    quality = _result(learned)["quality"]
    assert {"global", "global_gram", "global_autoencoder", "fused"} <= set(quality)


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS.keys())
def test_a_run_killed_while_learning_resumes_to_the_same_bytes(
    simulate, command, learned, tmp_path, kill
):
    module, name, nth = kill
    out = tmp_path / "out"
    killed = simulate(*command, "--out", out, die={"module": module, "name": name, "nth": nth})
    assert killed.code == -9
    assert not (out / "model.safetensors").exists()
    again = simulate(*command, "--out", out)
    assert again.code == 0, again.err
    assert (out / "model.safetensors").read_bytes() == (learned / "model.safetensors").read_bytes()
    assert all(kinds == KINDS for kinds in _debits(out).values())
    assert _result(out)["quality"] == _result(learned)["quality"]


def test_silos_that_trust_nobody_take_local_steps(simulate, command, tmp_path):
    out = tmp_path / "out"
    local = _set(("privacy.trust=silo", "autoencoder.local_steps=3", "privacy.epsilon=8"))
    done = simulate(*command, *local, "--out", out)
    assert done.code == 0, done.err
    releases = {release["kind"]: release for release in _result(out)["privacy"]["releases"]}
    assert releases["autoencoder"]["steps"] == 3
    assert releases["gram"]["steps"] == 1
    for release in releases.values():
        assert release["silo_noise_multiplier"] == release["noise_multiplier"]
    assert all(Counter(kinds) == Counter(KINDS) for kinds in _debits(out).values())
    assert _result(out)["privacy"]["epsilon"] <= 8.0


@pytest.mark.parametrize("combiner", ["mean", "trimmed_mean", "median"])
def test_local_steps_are_joined_as_planned(simulate, command, tmp_path, combiner):
    local = _set(("privacy.trust=silo", f"autoencoder.combiner={combiner}", "baselines=[]"))
    done = simulate(*command, *local, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    facts = json.loads((tmp_path / "out" / "model.json").read_text(encoding="utf-8"))
    assert facts["plan"]["models"]["autoencoder"]["combiner"] == combiner


def test_sampled_customers_learn_too(simulate, command, tmp_path):
    done = simulate(*command, *_set(("autoencoder.sampling_rate=0.5",)), "--out", tmp_path / "out")
    assert done.code == 0, done.err
    releases = {r["kind"]: r for r in _result(tmp_path / "out")["privacy"]["releases"]}
    assert releases["autoencoder"]["sampling_rate"] == 0.5
    assert releases["gram"]["sampling_rate"] == 1.0
    assert _result(tmp_path / "out")["privacy"]["epsilon"] <= 4.0


def test_a_network_alone_needs_no_gram(simulate, command, tmp_path):
    done = simulate(*command, "--set", 'models=["autoencoder"]', "--out", tmp_path / "out")
    assert done.code == 0, done.err
    kinds = ["popularity", *["autoencoder"] * ROUNDS]  # one model: nothing to weigh it against
    assert all(found == kinds for found in _debits(tmp_path / "out").values())
    assert "gram" not in _result(tmp_path / "out")["models"]


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("autoencoder.rounds=0", "rounds"),
        ("autoencoder.optimizer=sgd", "optimizer"),
        ("autoencoder.depth=2", "depth"),
        ('models=["autoencodr"]', "autoencoder"),
        ('models=["gram","gram"]', "distinct"),
        ("privacy.fusion_share=0.95", "nothing"),
    ],
)
def test_a_models_knob_out_of_range_is_refused_before_anything_is_spent(
    simulate, command, tmp_path, setting, hint
):
    done = simulate(*command, "--set", setting, "--out", tmp_path / "out")
    assert done.code == 2
    assert hint in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ray_engine_learns_the_byte_identical_model(simulate, command, learned, tmp_path):
    out = tmp_path / "out"
    done = simulate(*command, "--set", "engine.kind=ray", "--out", out)
    assert done.code == 0, done.err
    assert (out / "model.safetensors").read_bytes() == (learned / "model.safetensors").read_bytes()
    assert all(kinds == KINDS for kinds in _debits(out).values())


def test_passing_messages_as_bytes_learns_the_byte_identical_model(
    simulate, command, learned, tmp_path
):
    out = tmp_path / "out"
    done = simulate(*command, "--set", "engine.serialise=true", "--out", out)
    assert done.code == 0, done.err
    assert (out / "model.safetensors").read_bytes() == (learned / "model.safetensors").read_bytes()
