"""Attempts may use up what was planned, and only in the ways that the certificate covers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fondaco.shared.calibration import Statistic
from fondaco.shared.errors import BudgetError
from fondaco.shared.privacy import accountant
from fondaco.shared.privacy.events import PrivacyEvent
from fondaco.shared.privacy.ledger import Ledger

ASKED = "sha256:asked"
COINS = Statistic(kind="mf", share=3, dim=5, rounds=4, sampling_ppm=150_000)
EVERYBODY = Statistic(kind="popularity", share=1, dim=5)
TOO = Statistic(kind="gram", share=1, dim=5)


@pytest.fixture(scope="module")
def mixed(make_plan):
    """Two releases of everybody, then four rounds with coins."""
    return make_plan([EVERYBODY, TOO, COINS], epsilon=2.0, trust="silo")


@pytest.fixture
def open_ledger(tmp_path, mixed, owner):
    with Ledger.open_or_create(tmp_path / "north.db", "north", owner, mixed) as ledger:
        yield ledger


def test_attempts_of_everybody_never_stand_in_for_sampled_releases(open_ledger):
    for attempt in (1, 2):
        open_ledger.debit("popularity", 1, attempt, request=ASKED)
    with pytest.raises(BudgetError, match="a new plan is needed"):
        open_ledger.debit("popularity", 1, 3, request=ASKED)


def test_attempts_of_a_sampled_release_stand_in_for_its_like_alone(open_ledger):
    for attempt in range(1, 5):
        open_ledger.debit("mf", 3, attempt, request=ASKED)
    for round_num, attempt in ((3, 5), (4, 1), (5, 1), (6, 1)):
        with pytest.raises(BudgetError):
            open_ledger.debit("mf", round_num, attempt, request=ASKED)
    open_ledger.debit("popularity", 1, request=ASKED)


ORDERS = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 4, 5, 6]), st.integers(1, 5)), max_size=25, unique=True
)


@given(ORDERS)
@settings(max_examples=25, deadline=None)
def test_whatever_is_asked_for_costs_at_most_what_was_certified(
    tmp_path_factory, mixed, owner, orders
):
    kinds = {event.round_num: event.kind for event in mixed.releases}
    path = tmp_path_factory.mktemp("ledger") / "north.db"
    with Ledger.open_or_create(path, "north", owner, mixed) as ledger:
        for round_num, attempt in orders:
            try:
                ledger.debit(kinds[round_num], round_num, attempt, request=ASKED)
            except BudgetError:
                continue
        paid = [PrivacyEvent(**r["event"]) for r in ledger.records() if r["type"] == "DEBIT"]
    if paid:
        spent = accountant.epsilon_pld(tuple(e.joint for e in paid), float(mixed.target_delta))
        assert spent <= mixed.epsilons()["epsilon"] + 1e-3
