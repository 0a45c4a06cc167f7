"""What a coordinator sees of one silo under masks, and of the sum in the end."""

import numpy as np
import pytest
from scipy.stats import chisquare

from fondaco.shared.privacy.clipping import ClippedSum
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.secagg.masks import add_masks, from_ring, to_ring
from fondaco.simulation.attacks import attack, make_order
from fondaco.simulation.attacks.masks import MaskedCohort
from fondaco.simulation.attacks.reconstruction import Found, views_of
from fondaco.simulation.attacks.reconstruction_rows import _of_view, who_sees
from fondaco.simulation.attacks.results import results_table
from fondaco.simulation.attacks.world import load_world

SMALL = [
    "dataset.n_users=700",
    "dataset.n_items=150",
    "dataset.declared_users=700",
    "privacy.head=64",
]
GRAM = {"attacks": ["reconstruction"], "targets": ["gram"]}


def _order(*settings, **changes):
    named = {"attacks": [], "targets": [], "epsilons": [], "runs": 1, "quick": True, "seed": 0}
    return make_order("synthetic", [*SMALL, *settings], **(named | changes))


def _plan(*settings):
    world = load_world(_order(*settings).scenario)
    return world.plan("gram")


def _event(plan, kind="gram"):
    return next(event for event in plan.releases if event.kind == kind)


@pytest.fixture(scope="module")
def plan():
    return _plan("silos.count=10", "silos.t_collude=2", "silos.min_present=10")


@pytest.fixture(scope="module")
def cohort(plan):
    return MaskedCohort(plan, 0)


def test_masks_of_a_round_cancel_in_the_sum(plan, cohort):
    """Without the silos' own masks, which occur once each, nothing is left."""
    masks = cohort.round(_event(plan), 0)
    assert len(masks) == 10
    keys = [key for own in masks.values() for key, _ in own]
    own = {key for key in keys if keys.count(key) == 1}
    assert len(own) == 10
    numbers = np.random.default_rng(0).integers(-1000, 1000, (10, 50))
    total = np.zeros(50, dtype=np.uint32)
    for values, of_silo in zip(numbers, masks.values(), strict=True):
        words = to_ring(values, plan.ring_bits)
        add_masks(words, of_silo)
        total += words
    add_masks(total, [(k, -sign) for of_silo in masks.values() for k, sign in of_silo if k in own])
    assert np.array_equal(from_ring(total, plan.ring_bits), numbers.sum(axis=0))


def test_the_attackers_silos_know_their_masks_with_the_victim_and_no_other(plan, cohort):
    masks = cohort.round(_event(plan), 0)
    assert (len(cohort.honest), len(cohort.colluders)) == (8, 2)
    victim = cohort.honest[0]
    assert len(masks[victim]) == 10  # its own and nine neighbours'
    assert len(cohort.common(masks, victim)) == 2


def test_numbers_under_masks_are_uniform_bytes(plan, cohort):
    """False alarms: one in ten thousand; keys are the operating system's."""
    event = _event(plan)
    seen = cohort.seen(np.zeros(event.dim, dtype=np.int64), event, 3)
    counts = np.bincount(seen.astype("<i4").view(np.uint8), minlength=256)
    assert chisquare(counts).pvalue > 1e-4


def test_no_two_releases_are_under_the_same_masks(plan, cohort):
    event = _event(plan)
    zeros = np.zeros(20, dtype=np.int64)
    seen = [cohort.seen(zeros, event, num).tobytes() for num in range(12)]
    assert len(set(seen)) == 12  # of two rounds, as there are eight honest silos
    assert cohort.seen(zeros, event, 3).tobytes() == seen[3]


def test_who_knows_all_masks_sees_the_share(plan, cohort, monkeypatch):
    """The power of the view: what it hides is what was to be hidden."""
    event = _event(plan)
    numbers = np.arange(-10, 10) * plan.grid
    monkeypatch.setattr(MaskedCohort, "common", lambda self, masks, silo: masks[silo])
    assert np.array_equal(cohort.seen(numbers, event, 5), numbers)


@pytest.mark.parametrize(
    ("setting", "terms"),
    [
        ("privacy.key_agreement=x25519-mlkem768", ("x25519-mlkem768", 32)),
        ("dataset.declared_users=20000", ("x25519", 64)),
    ],
)
def test_any_masked_plan_can_be_looked_at(setting, terms):
    plan = _plan("silos.count=5", setting)
    assert (plan.key_agreement, plan.ring_bits) == terms
    total = ClippedSum(values=np.zeros(40, dtype=np.int64), sens_grid=plan.grid)
    event = _event(plan)
    seen = views_of(plan, 0)["masked"].see(total, event, NoiseStream.seeded(0), 0)
    assert np.abs(seen).max() > 2 ** (plan.ring_bits - 5) / plan.grid


def test_the_sum_has_the_noise_of_all_honest_silos(plan, cohort):
    event = _event(plan)
    total = ClippedSum(values=np.zeros(20_000, dtype=np.int64), sens_grid=plan.grid)
    view = views_of(plan, 0)["sum"]
    seen = view.see(total, event, NoiseStream.seeded(0), 0)
    assert view.whole
    assert seen.std() == pytest.approx(float(event.silo_noise_multiplier) * 8**0.5, rel=0.03)


@pytest.mark.parametrize(
    ("settings", "hidden"),
    [
        (("privacy.secure_aggregation=simulated",), "simulated"),
        (("privacy.trust=silo",), "none"),
    ],
)
def test_without_masks_the_coordinator_sees_the_share(settings, hidden):
    plan = _plan(*settings)
    told = who_sees(plan)
    assert plan.secure_aggregation == hidden
    assert set(told) == {"share", "full noise"} < set(views_of(plan, 0))
    assert told["share"].startswith("the coordinator: ")
    assert ("only simulated" in told["share"]) == (hidden == "simulated")


def test_with_masks_nobody_sees_the_share(plan):
    told = who_sees(plan)
    assert set(told) == {"share", "masked", "sum", "full noise"} < set(views_of(plan, 0))
    assert told["share"].startswith("nobody while the masks hold")
    assert "2 of 10 silos on his side" in told["masked"]
    assert not any("simulated" in text or "in the clear" in text for text in told.values())


def test_document_says_who_sees_what_and_that_masks_hide_it():
    document = attack(_order(**GRAM), lambda *_: None)
    rows = [row for row in document["results"] if row["settings"]["view"] == "masked"]
    assert [row["settings"]["attacker"] for row in rows] == [
        "knows all",
        "knows half",
        "knows none",
    ]
    for row in rows:
        settings = row["settings"]
        assert (row["target"], row["estimate"], row["verdict"]) == (
            "gram masked",
            "rate",
            "below claim",
        )
        assert settings["auc low"] - 0.1 < 0.5 < settings["auc high"] + 0.1
        assert abs(row["value"] - 0.5) <= settings["allowed around a half"] < 0.4
        assert row["false_alarms"] == {"alarms": 0, "runs": 1}
        assert set(row["power"]) == {"no noise", "masks broken"}
        assert settings["secure_aggregation"] == "masked-sum"
        assert (settings["key_agreement"], settings["ring_bits"]) == ("x25519", 32)
        assert (settings["silos"], settings["colluding_silos"], settings["grid"]) == (10, 1, 2**18)
    assert rows[0]["power"]["no noise"]["value"] > 0.97


def test_golden_fields_of_a_reconstruction_row():
    """Other tools read these; more may come."""
    document = attack(_order(**GRAM), lambda *_: None)
    settings = {
        "attacker": str,
        "view": str,
        "seen_by": str,
        "plan": str,
        "secure_aggregation": str,
        "key_agreement": str,
        "ring_bits": int,
        "grid": int,
        "silos": int,
        "colluding_silos": int,
        "silo_customers": int,
        "silo_noise_multiplier": float,
        "noise_multiplier": float,
        "auc": float,
        "auc low": float,
        "auc high": float,
        "precision": float,
        "popularity auc": float,
        "auc with popularity": float,
        "victims": int,
    }
    assert document["schema"] == 1
    assert len(document["results"]) == 3 * 4
    for row in document["results"]:
        assert {name: type(row["settings"][name]) for name in settings} == settings


def test_broken_masks_are_caught(monkeypatch):
    """Masks that the attacker knows: at a large epsilon the share then shows the items."""
    monkeypatch.setattr(MaskedCohort, "common", lambda self, masks, silo: masks[silo])
    order = _order("silos.epsilon_if_masking_broke=0", epsilons=[50.0], **GRAM)
    document = attack(order, lambda *_: None)
    rows = {
        (row["settings"]["attacker"], row["settings"]["view"]): row for row in document["results"]
    }
    found, share = rows["knows all", "masked"], rows["knows all", "share"]
    assert found["value"] == share["value"] > 0.7
    assert found["verdict"] == "above claim"
    assert found["false_alarms"] == {"alarms": 1, "runs": 1}


def test_a_masked_row_is_above_claim_only_beyond_accident():
    def row(auc):
        spread = np.tile([-0.1, 0.1], 10)
        found = Found(auc=auc + spread, precision=spread, joined_auc=spread, popularity_auc=spread)
        named = {"attack": "a", "target": "t", "claim_epsilon": 4.0, "delta": 1e-5}
        views = {"masked": found, "share": found, "no noise": found}
        return _of_view("masked", views, settings={}, **named)

    assert [row(auc).verdict for auc in (0.4, 0.5, 0.6)] == ["below claim"] * 3
    assert [row(auc).verdict for auc in (0.38, 0.62)] == ["above claim"] * 2


def test_table_says_who_sees_what():
    table = results_table(attack(_order(**GRAM), lambda *_: None))
    assert table.row_count == 12
    assert "\nshare is seen by nobody while the masks hold" in table.caption
    assert "\nmasked is seen by the coordinator with 1 of 10 silos on his side" in table.caption


def test_table_of_other_attacks_names_no_view():
    order = _order(attacks=["cosine"], targets=["gram"])
    assert "is seen by" not in results_table(attack(order, lambda *_: None)).caption


def test_unmasked_plans_have_no_masked_rows():
    order = _order("privacy.secure_aggregation=simulated", **GRAM)
    document = attack(order, lambda *_: None)
    assert {row["settings"]["view"] for row in document["results"]} == {"share", "full noise"}
    assert {row["settings"]["secure_aggregation"] for row in document["results"]} == {"simulated"}
