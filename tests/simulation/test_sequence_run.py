"""The sequence model in a whole run: its rule in the plan, its part in the global model."""

import numpy as np
import pytest

from fondaco.server import planning
from fondaco.server.learning import Learner
from fondaco.shared.errors import ConfigError
from fondaco.shared.models import PublicFacts
from fondaco.shared.models.sequence import SequenceModel

BOTH = ('models=["gram","sequence"]', "sequence.rounds=2")


def model_terms(scenario, name):
    return planning.model_terms(name, scenario.terms()[name], scenario.privacy.trust)


def test_its_rule_moves_it_where_silos_send_gradients(tiny_scenario):
    assert model_terms(tiny_scenario(*BOTH), "sequence").optimizer == "dual-averaging"
    named = tiny_scenario(*BOTH, "sequence.optimizer=fedyogi")
    assert model_terms(named, "sequence").optimizer == "fedyogi"


def test_silos_that_train_locally_are_averaged(tiny_scenario):
    scenario = tiny_scenario(*BOTH, "privacy.trust=silo")
    terms = model_terms(scenario, "sequence")
    assert (terms.optimizer, terms.learning_rate) == ("fedavg", 1.0)


def test_its_rule_is_refused_where_silos_train_locally(tiny_scenario):
    scenario = tiny_scenario(*BOTH, "privacy.trust=silo", "sequence.optimizer=dual-averaging")
    with pytest.raises(ConfigError, match="reads gradients"):
        model_terms(scenario, "sequence")


@pytest.mark.parametrize("trust", ["aggregate", "silo"])
def test_run_learns_and_scores_it(run_tiny, tmp_path, trust):
    run = run_tiny(tmp_path, *BOTH, f"privacy.trust={trust}")
    assert np.any(run.outcome.model.parameters)
    assert {"global", "global_gram", "global_sequence"} <= set(run.result["quality"])


def test_learner_that_gets_no_rule_from_the_model_refuses(run_tiny, tmp_path, monkeypatch):
    """A rule that no optimizer has must come from the model: nothing else moves in its place."""
    run = run_tiny(tmp_path, *BOTH)
    facts = PublicFacts(catalogue=run.prepared.market.catalogue, model=run.outcome.model)
    learner = Learner("sequence", run.prepared.plan, facts)
    monkeypatch.setattr(SequenceModel, "advance", lambda *_: None)
    result = next(done for done in run.outcome.rounds if done.kind == "sequence")
    with pytest.raises(ConfigError, match="dual-averaging"):
        learner.absorb(result)
