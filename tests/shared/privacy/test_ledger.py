import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from fondaco.shared.calibration import Statistic
from fondaco.shared.chain import store
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.errors import BudgetError, LedgerError, RefusalError
from fondaco.shared.privacy import ledger as ledger_module
from fondaco.shared.privacy.ledger import Ledger

OWNER = Identity.seeded(0, key_name("north"))

ASKED = "sha256:asked"


def _types(ledger):
    return [record["type"] for record in ledger.records()]


def _sha(blob):
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def test_new_ledger_holds_who_and_what_was_agreed(ledger, plan):
    assert _types(ledger) == ["GENESIS", "PLAN"]
    assert ledger.records()[1]["plan_digest"] == plan.digest
    assert ledger.records()[1]["clear_shares"] == f"{plan.epsilons()['clear_shares']:.6f}"


def test_new_ledger_of_a_simulation_claims_nothing(ledger):
    assert ledger.records()[1]["claims"] == "none (simulation)"


def test_debit_takes_the_events_cost_from_the_budget(ledger, plan):
    debit = ledger.debit("popularity", 1, request=ASKED)
    record = ledger.records()[-1]
    assert ledger.spent_units() == record["cost"] == plan.cost(debit.event)
    assert record["left"] == plan.budget_units - record["cost"]


def test_debits_of_the_whole_plan_use_up_its_budget_to_the_unit(ledger):
    ledger.debit("popularity", 1, request=ASKED)
    ledger.debit("gram", 2, request=ASKED)
    assert ledger.records()[-1]["left"] == 0


def test_debit_stops_at_budget_and_writes_only_the_refusal(ledger):
    ledger.debit("popularity", 1, request=ASKED)
    ledger.debit("gram", 2, request=ASKED)
    before = ledger.records()
    with pytest.raises(BudgetError, match="new plan"):
        ledger.debit("popularity", 1, attempt=2, request=ASKED)
    assert ledger.records()[:-1] == before
    assert ledger.records()[-1]["type"] == "REFUSAL"
    assert ledger.records()[-1]["attempt"] == 2


def test_attempts_pay_each_and_take_from_the_other_releases(ledger, plan):
    for attempt in range(1, 10):
        ledger.debit("popularity", 1, attempt, request=ASKED)
    with pytest.raises(BudgetError):
        ledger.debit("gram", 2, request=ASKED)
    assert ledger.spent_units() <= plan.budget_units


def test_debit_refuses_what_the_plan_does_not_hold(ledger):
    with pytest.raises(RefusalError):
        ledger.debit("gram", 1, request=ASKED)
    assert _types(ledger) == ["GENESIS", "PLAN", "REFUSAL"]
    assert ledger.records()[-1]["code"] == "not-in-plan"


def test_debit_asked_again_is_the_same_and_costs_nothing(ledger):
    first = ledger.debit("popularity", 1, request=ASKED)
    assert ledger.debit("popularity", 1, request=ASKED) == first
    assert _types(ledger).count("DEBIT") == 1


def test_debit_names_the_request_that_it_answers(ledger):
    ledger.debit("popularity", 1, request=ASKED)
    assert ledger.records()[-1]["request"] == ASKED


@pytest.mark.parametrize("released", [False, True])
def test_debit_never_serves_another_request(ledger, path, plan, released):
    debit = ledger.debit("popularity", 1, request=ASKED)
    if released:
        ledger.record_release(debit, b"blob", "test")
    before = ledger.records()
    with Ledger(path, OWNER, plan) as again:
        for opened in (ledger, again):
            with pytest.raises(RefusalError, match="another request for popularity in round 1"):
                opened.debit("popularity", 1, request="sha256:other")
    assert ledger.records()[:-1] == before
    assert ledger.records()[-1]["code"] == "other-request"


def test_another_attempt_may_answer_another_request(ledger):
    ledger.debit("popularity", 1, request=ASKED)
    assert ledger.debit("popularity", 1, 2, request="sha256:other").seq == 4


def test_debit_without_release_may_be_completed_after_a_restart(ledger, path, plan):
    first = ledger.debit("popularity", 1, request=ASKED)
    with Ledger(path, OWNER, plan) as again:
        debit = again.debit("popularity", 1, request=ASKED)
        assert (debit.seq, debit.released) == (first.seq, "")
        again.record_release(debit, b"blob", "test")
    assert ledger.debit("popularity", 1, request=ASKED).released == _sha(b"blob")


def test_released_debit_admits_only_the_identical_blob(ledger):
    debit = ledger.debit("popularity", 1, request=ASKED)
    ledger.record_release(debit, b"blob", "test")
    ledger.record_release(debit, b"blob", "test")
    with pytest.raises(BudgetError, match="another number"):
        ledger.record_release(debit, b"other noise", "test")
    assert _types(ledger).count("RELEASE") == 1


def test_release_names_its_debit_blob_and_source_of_noise(ledger):
    debit = ledger.debit("popularity", 1, request=ASKED)
    ledger.record_release(debit, b"blob", "getrandom chacha20")
    record = ledger.records()[-1]
    assert (record["debit_seq"], record["blob"]) == (debit.seq, _sha(b"blob"))
    assert (record["size_bytes"], record["rng"]) == (4, "getrandom chacha20")


def test_release_without_a_debit_is_refused(ledger, tmp_path, plan):
    with Ledger.open_or_create(tmp_path / "other.db", "north", OWNER, plan) as other:
        debit = other.debit("popularity", 1, request=ASKED)
    with pytest.raises(LedgerError, match="no such debit"):
        ledger.record_release(debit, b"blob", "test")
    assert _types(ledger) == ["GENESIS", "PLAN"]


@pytest.mark.parametrize("change", [{"seq": 99}, {"silo_id": "south"}])
def test_release_under_a_forged_debit_is_refused(ledger, change):
    debit = ledger.debit("popularity", 1, request=ASKED)
    with pytest.raises(LedgerError, match="no such debit"):
        ledger.record_release(replace(debit, **change), b"blob", "test")


def test_two_connections_share_one_budget(ledger, path, plan):
    with Ledger(path, OWNER, plan) as other:
        assert (
            other.debit("popularity", 1, request=ASKED).seq
            == ledger.debit("popularity", 1, request=ASKED).seq
        )
        other.debit("gram", 2, request=ASKED)
        with pytest.raises(BudgetError):
            ledger.debit("popularity", 1, attempt=2, request=ASKED)
    assert ledger.chain.head.size == len(ledger.records()) == 5


def test_two_connections_release_one_blob_under_one_debit(ledger, path, plan):
    with Ledger(path, OWNER, plan) as other:
        mine, theirs = (
            ledger.debit("popularity", 1, request=ASKED),
            other.debit("popularity", 1, request=ASKED),
        )
        other.record_release(theirs, b"theirs", "test")
        with pytest.raises(BudgetError):
            ledger.record_release(mine, b"mine", "test")


def test_writer_that_never_ends_is_an_error_and_not_a_release(ledger, path, plan):
    ledger.chain._db.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(path, isolation_level=None)) as hog:
        hog.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked"):
            ledger.debit("popularity", 1, request=ASKED)
    assert ledger.debit("popularity", 1, request=ASKED).seq == 3


def test_failed_write_is_forgotten_and_not_taken_for_a_debit(ledger, monkeypatch):
    write = store._insert

    def insert_and_fail(db, record):
        write(db, record)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(store, "_insert", insert_and_fail)
    with pytest.raises(LedgerError, match="nothing was released"):
        ledger.debit("popularity", 1, request=ASKED)
    monkeypatch.undo()
    assert _types(ledger) == ["GENESIS", "PLAN"]
    assert ledger.debit("popularity", 1, request=ASKED).seq == 3


def test_debit_says_how_customers_were_sampled(tmp_path, make_plan):
    coins = Statistic(kind="popularity", share=1, dim=5, rounds=2, sampling_ppm=500_000, steps=3)
    plan = make_plan([coins], epsilon=8.0, trust="silo")
    with Ledger.open_or_create(tmp_path / "coins.db", "north", OWNER, plan) as ledger:
        ledger.debit("popularity", 2, request=ASKED)
        record = ledger.records()[-1]
    assert record["sampling"] == "poisson"
    assert (record["event"]["sampling_ppm"], record["event"]["steps"]) == (500_000, 3)


def test_debit_of_a_release_of_everybody_names_no_sampling(ledger):
    ledger.debit("popularity", 1, request=ASKED)
    assert ledger.records()[-1]["sampling"] == "none"


def test_records_hold_no_customer_count_or_seed(ledger):
    ledger.record_release(
        ledger.debit("popularity", 1, request=ASKED), b"blob", "seeded chacha20: no claim"
    )
    text = json.dumps(ledger.records())
    assert not any(word in text for word in ("n_users", "n_customers", '"seed"', "user_id"))


def _fail(ledger, attempt=1):
    ledger.debit("popularity", 1, attempt, request=ASKED)
    ledger.refuse("popularity", 1, attempt, RefusalError("it failed", "failed"), failed=1)


def test_failed_computation_closes_its_attempt(ledger, path, plan):
    _fail(ledger)
    spent = ledger.spent_units()
    with Ledger(path, OWNER, plan) as again:
        for opened in (ledger, again):
            with pytest.raises(RefusalError, match="new attempt"):
                opened.debit("popularity", 1, request=ASKED)
    assert ledger.spent_units() == spent
    assert _types(ledger).count("DEBIT") == 1


def test_failed_computation_is_seen_by_a_connection_that_was_open_before(ledger, path, plan):
    with Ledger(path, OWNER, plan) as other:
        _fail(ledger)
        with pytest.raises(RefusalError, match="new attempt"):
            other.debit("popularity", 1, request=ASKED)


@pytest.mark.parametrize("failed", [0, 1])
def test_refusals_after_a_failed_computation_keep_it_closed(ledger, failed):
    _fail(ledger)
    ledger.refuse(
        "popularity", 1, 1, RefusalError("another request was paid for", "x"), failed=failed
    )
    with pytest.raises(RefusalError, match="new attempt"):
        ledger.debit("popularity", 1, request=ASKED)


def test_attempt_after_a_failed_one_is_paid_for_again(ledger, plan):
    _fail(ledger)
    ledger.debit("popularity", 1, 2, request=ASKED)
    assert ledger.spent_units() == 2 * plan.cost(plan.releases[0])


def test_refusal_of_a_request_leaves_its_attempt_open(ledger):
    first = ledger.debit("popularity", 1, request=ASKED)
    ledger.refuse("popularity", 1, 1, RefusalError("another request was paid for", "x"))
    assert ledger.records()[-1]["failed"] == 0
    assert ledger.debit("popularity", 1, request=ASKED) == first


def test_failed_computation_closes_no_other_release(ledger):
    _fail(ledger)
    assert ledger.debit("gram", 2, request=ASKED).attempt == 1


def test_ledger_of_another_schema_is_refused_on_opening(path, plan, monkeypatch):
    monkeypatch.setattr(ledger_module, "SCHEMA", 1)
    Ledger.open_or_create(path, "north", OWNER, plan).__exit__()
    monkeypatch.undo()
    for opening in (
        lambda: Ledger(path, OWNER, plan),
        lambda: Ledger.open_or_create(path, "north", OWNER, plan),
    ):
        with pytest.raises(LedgerError, match="schema 1; this code reads 4"):
            opening()
