"""Plans in JSON and TOML: a plan that is let in must be one, and cost what it says."""

import json
from functools import cache

from fuzzing import Choices, bent, bent_tree, spelled

from fondaco.shared.calibration import Statistic, filter_budget, plan_releases
from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.plan_text import from_toml, to_toml
from fondaco.shared.privacy.plan import GRID, Cohort, RunPlan


@cache
def samples():
    """Return a plan in which silos add noise alone and one of masked sums."""
    silos = [f"silo-{num}" for num in range(4)]
    roster = {name: Identity.seeded(0, key_name(name)).public.text() for name in silos}
    masks = {"key_agreement": "x25519", "ring_bits": 64}
    return tuple(
        _plan(trust, secure_aggregation=how, roster=roster, **more)
        for trust, how, more in (("silo", "none", {}), ("aggregate", "masked-sum", masks))
    )


def _plan(trust, **terms):
    cohort = Cohort.default(4)
    wanted = [
        Statistic(kind="popularity", share=1, dim=5),
        Statistic(kind="gram", share=9, dim=10),
    ]
    releases = plan_releases(wanted, epsilon=1.0, target_delta=1e-6, cohort=cohort, trust=trust)
    order, budget = filter_budget(releases, 1e-6)
    return RunPlan(
        trust=trust,
        mode="deploy",
        cohort=cohort,
        grid=GRID,
        target_delta="1e-06",
        target_epsilon="1.0",
        order=order,
        budget_units=budget,
        releases=releases,
        catalogue_digest="sha256:catalogue",
        n_items=5,
        head=4,
        code_digest="sha256:code",
        models={"gram": {"share": "1.0"}},
        public={"split": "2011-09-01"},
        expires="2999-12-31",
        witnesses=2,
        coordinator=Identity.seeded(0, COORDINATOR).public.text(),
        **terms,
    )


def target(data):
    choices = Choices(data)
    plan = choices.pick(samples())
    read, text = RunPlan.from_json, plan.to_json()
    match choices.number(3):
        case 0:
            text = spelled(bent_tree(json.loads(text), choices), choices)
        case 1:
            text = bent(text.encode(), choices, text.encode()).decode("utf-8", "surrogateescape")
        case 2:
            read, text = from_toml, _toml(plan)
            text = bent(text.encode(), choices, text.encode()).decode("utf-8", "surrogateescape")
    try:
        got = read(text)
        text = got.to_json()  # where it holds half a character, only this says so
    except ConfigError:
        return
    assert RunPlan.from_json(text).digest == got.digest
    assert got.budget_units == sum(got.cost(event) for event in got.releases)


@cache
def _toml_texts():
    return {plan.digest: to_toml(plan) for plan in samples()}


def _toml(plan):
    return _toml_texts()[plan.digest]
