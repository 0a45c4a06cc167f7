"""What every iterative model's terms promise."""

from dataclasses import fields, replace

import pytest

from fondaco.shared.errors import ConfigError
from fondaco.shared.models import MODELS, IterativeModel
from fondaco.shared.models.base import RoundTerms
from fondaco.shared.models.terms import PlannedModels

ITERATIVE = {name: model for name, model in MODELS.items() if isinstance(model, IterativeModel)}
each = pytest.mark.parametrize("name", MODELS)
each_iterative = pytest.mark.parametrize("name", ITERATIVE)


@each
def test_terms_survive_their_text(name):
    kind = MODELS[name].terms
    assert kind.from_text(kind().as_text()) == kind()
    changed = replace(kind(), share=0.1 + 0.2)
    assert kind.from_text(changed.as_text()) == changed
    assert all(isinstance(text, str) for text in changed.as_text().values())


@each
def test_terms_that_are_unknown_or_missing_are_refused(name):
    kind = MODELS[name].terms
    known = kind().as_text()
    for texts in ({**known, "speed": "1"}, {k: known[k] for k in list(known)[1:]}, {}):
        with pytest.raises(ConfigError, match="terms"):
            kind.from_text(texts)


@each
@pytest.mark.parametrize("text", ["nan", "", "1e", "True", "[1]"])
def test_terms_that_are_no_numbers_are_refused(name, text):
    kind = MODELS[name].terms
    for field in fields(kind):
        if not isinstance(getattr(kind(), field.name), str):
            with pytest.raises(ConfigError):
                kind.from_text(kind().as_text() | {field.name: text})


@each
@pytest.mark.parametrize("text", ["0", "-1", "-inf", "inf"])
def test_terms_out_of_range_are_refused(name, text):
    kind = MODELS[name].terms
    shared = {f.name for f in fields(RoundTerms)} - {"optimizer", "combiner"}
    left_open = {"rounds"} if text == "0" and getattr(kind, "least_rounds", 1) == 0 else set()
    for field in (shared - left_open) & {f.name for f in fields(kind)}:
        with pytest.raises(ConfigError):
            kind.from_text(kind().as_text() | {field: text})


@each_iterative
@pytest.mark.parametrize("knob", ["optimizer", "combiner"])
def test_terms_that_name_something_unknown_are_refused(name, knob):
    kind = MODELS[name].terms
    with pytest.raises(ConfigError, match="sgd"):
        kind.from_text(kind().as_text() | {knob: "sgd"})


@each_iterative
@pytest.mark.parametrize("field", ["sampling_rate", "averaged"])
def test_terms_that_are_probabilities_end_at_one(name, field):
    kind = MODELS[name].terms
    with pytest.raises(ConfigError, match=field):
        kind.from_text(kind().as_text() | {field: "1.0001"})


def test_a_plan_that_names_an_unknown_model_or_term_is_refused(make_plan):
    for models in ({"svd": {"share": "1.0"}}, {"gram": {"share": "1.0", "rank": "3"}}):
        plan = make_plan(models=models)
        with pytest.raises(ConfigError):
            PlannedModels.of_plan(plan)
