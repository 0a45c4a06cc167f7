import numpy as np
import pytest

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.clipping import gram_dim
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.vocabulary import Vocabulary
from fondaco.simulation.library import load_scenario
from fondaco.simulation.planning import make_plan
from fondaco.simulation.run import prepare

TINY = ["dataset.n_users=60", "dataset.n_items=50", "silos.count=6", "privacy.head=20"]


def scenario(*settings):
    return load_scenario("synthetic", [*TINY, *settings])


def silos(count):
    return [f"merchant-{num}" for num in range(count)]


def catalogue(n_items=50, text="lamp"):
    return Catalogue(
        items=Vocabulary(tuple(f"i{num}" for num in range(n_items))),
        texts=(text,) * n_items,
        categories=("",) * n_items,
        brands=("",) * n_items,
        prices=np.full(n_items, np.nan),
    )


def test_plan_is_the_same_whatever_the_rows():
    """Another seed draws other customers; one that draws the same items has the same plan."""
    one = prepare(scenario())
    fewer = prepare(scenario("dataset.n_users=40"))
    assert one.market.catalogue.digest == fewer.market.catalogue.digest
    assert sum(s.n_users for s in one.silos) != sum(s.n_users for s in fewer.silos)
    assert one.plan == fewer.plan


def test_plan_knows_nothing_but_scenario_catalogue_and_number_of_silos():
    first, again = (make_plan(scenario(), catalogue(), silos(6)) for _ in "ab")
    assert first.digest == again.digest


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0, 8.0])
@pytest.mark.parametrize("trust", ["aggregate", "silo"])
def test_certificate_never_exceeds_the_target(epsilon, trust):
    wanted = scenario(f"privacy.epsilon={epsilon}", f"privacy.trust={trust}")
    found = make_plan(wanted, catalogue(), silos(12)).epsilons()
    assert 0.98 * epsilon < found["epsilon"] <= epsilon
    assert found["epsilon_rdp"] >= found["epsilon"]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_shares_are_as_asked_and_sum_to_one(share):
    plan = make_plan(scenario(f"privacy.popularity_share={share}"), catalogue(), silos(6))
    shares = {event.kind: plan.cost(event) / plan.budget_units for event in plan.releases}
    assert shares["popularity"] == pytest.approx(share, rel=1e-5)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_releases_are_popularity_then_gram_with_public_lengths():
    plan = make_plan(scenario(), catalogue(), silos(6))
    found = [(event.kind, event.round_num, event.dim) for event in plan.releases]
    assert found == [("popularity", 1, 50), ("gram", 2, gram_dim(20))]
    assert (plan.n_items, plan.head) == (50, 20)


def test_head_follows_the_public_rule_when_none_is_given():
    wanted = scenario("privacy.head=0", "dataset.declared_users=1000")
    more = scenario("privacy.head=0", "dataset.declared_users=100000")
    plans = [make_plan(s, catalogue(3000), silos(6)) for s in (wanted, more)]
    assert 100 < plans[0].head < plans[1].head <= 3000


def test_public_facts_hold_the_split_dates():
    facts = make_plan(scenario(), catalogue(), silos(6)).public
    assert facts["valid_from"] == "2024-10-01"
    assert facts["test_from"] == "2024-11-15"
    assert facts["dataset"] == "synthetic"


def test_noise_share_follows_from_who_must_remain():
    plan = make_plan(scenario("silos.min_present=9", "silos.t_collude=5"), catalogue(), silos(12))
    assert (plan.cohort.n_min, plan.cohort.t_collude) == (9, 5)
    for event in plan.releases:
        assert event.silo_stddev_grid == pytest.approx(event.stddev_grid / 2, rel=1e-4)


def test_trust_silo_makes_every_silo_add_all_noise():
    plan = make_plan(scenario("privacy.trust=silo"), catalogue(), silos(12))
    assert all(event.silo_stddev_grid == event.stddev_grid for event in plan.releases)
    assert plan.secure_aggregation == "none"


def test_plan_survives_its_text():
    plan = make_plan(scenario(), catalogue(), silos(6))
    assert RunPlan.from_json(plan.to_json()) == plan


def test_another_catalogue_is_another_plan():
    plans = [make_plan(scenario(), catalogue(text=text), silos(6)) for text in ("lamp", "Lampe")]
    assert plans[0].digest != plans[1].digest


@pytest.mark.parametrize(
    "setting",
    [
        "privacy.epsilon=0",
        "privacy.epsilon=-1",
        "privacy.epsilon=nan",
        "privacy.epsilon=inf",
        "privacy.target_delta=0",
        "privacy.target_delta=1",
        "privacy.target_delta=nan",
        "privacy.popularity_share=0",
        "privacy.popularity_share=1",
        "privacy.popularity_share=1e-15",
        "privacy.popularity_share=0.9999999",
        "privacy.head=1",
        "privacy.head=51",
        "privacy.head=-3",
        "models=[]",
        'models=["gramm"]',
        "silos.min_present=7",
        "silos.t_collude=6",
        "silos.min_present=-1",
        "silos.t_collude=-1",
        "silos.witnesses=6",
        "silos.witnesses=-1",
    ],
)
def test_a_knob_out_of_range_is_refused(setting):
    with pytest.raises(ConfigError):
        make_plan(scenario(setting), catalogue(), silos(6))
