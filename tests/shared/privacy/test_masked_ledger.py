"""Under a masked plan only masked bytes leave, and one answer per round helps to unmask."""

import pytest

from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.errors import RefusalError
from fondaco.shared.privacy.ledger import Ledger

OWNER = Identity.seeded(0, key_name("north"))
ASKED, SILOS, OTHERS = (f"sha256:{digit * 64}" for digit in "123")
ROUND = ("popularity", 1, 1)


@pytest.fixture
def masked(tmp_path, make_plan, make_masked):
    """The ledger of a silo under a masked plan."""
    plan = make_plan(**make_masked())
    with Ledger.open_or_create(tmp_path / "masked.db", "north", OWNER, plan) as opened:
        yield opened


def _released(ledger, masked=SILOS, attempt=1):
    debit = ledger.debit("popularity", 1, attempt, request=ASKED)
    ledger.record_release(debit, b"masked sum", "test", masked)
    return debit


def _of(ledger, kind):
    return [record for record in ledger.records() if record["type"] == kind]


def test_masked_release_names_the_silos_that_hide_it(masked):
    _released(masked)
    assert [record["masked"] for record in _of(masked, "RELEASE")] == [SILOS]


def test_naked_bytes_never_leave_under_a_masked_plan(masked):
    with pytest.raises(RefusalError, match="not masked as planned") as caught:
        _released(masked, masked="")
    assert caught.value.code == "unmasked"
    assert _of(masked, "RELEASE") == []


def test_masked_bytes_never_leave_under_a_plan_without_masks(ledger):
    with pytest.raises(RefusalError, match="not masked as planned"):
        _released(ledger)
    assert _of(ledger, "RELEASE") == []
    _released(ledger, masked="")
    assert _of(ledger, "RELEASE")[0]["masked"] == ""


def test_release_may_be_recorded_again_and_stands_once(masked):
    debit = _released(masked)
    masked.record_release(debit, b"masked sum", "test", SILOS)
    assert len(_of(masked, "RELEASE")) == 1


def test_answer_is_written_down_without_its_seeds(masked):
    _released(masked)
    masked.record_unmask(*ROUND, survivors=SILOS, answer=b"seeds and shares")
    (record,) = _of(masked, "UNMASK")
    assert set(record) == {
        *("type", "seq", "ts", "kind", "round_num", "attempt", "plan_digest"),
        *("survivors", "answer"),
    }
    assert "seeds" not in str(record)


def test_same_answer_may_be_given_again_and_stands_once(masked, tmp_path):
    _released(masked)
    masked.record_unmask(*ROUND, survivors=SILOS, answer=b"seeds")
    with Ledger(tmp_path / "masked.db", OWNER, masked._plan) as again:
        again.record_unmask(*ROUND, survivors=SILOS, answer=b"seeds")
        assert len(_of(again, "UNMASK")) == 1


@pytest.mark.parametrize(("survivors", "answer"), [(OTHERS, b"seeds"), (SILOS, b"others' seeds")])
def test_no_second_answer_is_given_in_a_round(masked, survivors, answer):
    _released(masked)
    masked.record_unmask(*ROUND, survivors=SILOS, answer=b"seeds")
    before = masked.records()
    with pytest.raises(RefusalError, match="another answer") as caught:
        masked.record_unmask(*ROUND, survivors=survivors, answer=answer)
    assert caught.value.code == "other-survivors"
    assert masked.records() == before


def test_each_attempt_has_its_own_answer(masked):
    for attempt, survivors in ((1, SILOS), (2, OTHERS)):
        _released(masked, attempt=attempt)
        masked.record_unmask("popularity", 1, attempt, survivors=survivors, answer=b"seeds")
    assert [record["survivors"] for record in _of(masked, "UNMASK")] == [SILOS, OTHERS]


def test_nothing_is_unmasked_that_was_not_released(masked):
    masked.debit("popularity", 1, request=ASKED)
    _released(masked, attempt=2)
    for key in (ROUND, ("popularity", 2, 1), ("gram", 2, 1)):
        with pytest.raises(RefusalError, match="has no masks") as caught:
            masked.record_unmask(*key, survivors=SILOS, answer=b"seeds")
        assert caught.value.code == "out-of-order"
    assert _of(masked, "UNMASK") == []


def test_nothing_is_unmasked_that_was_never_masked(ledger):
    _released(ledger, masked="")
    with pytest.raises(RefusalError, match="has no masks"):
        ledger.record_unmask(*ROUND, survivors=SILOS, answer=b"seeds")


def test_debit_says_where_its_sum_is_cut_off(masked):
    debit = masked.debit("popularity", 1, request=ASKED)
    assert debit.bound == masked._plan.sum_bound(debit.event)
