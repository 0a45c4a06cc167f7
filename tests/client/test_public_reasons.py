"""What a server is told of a failure at a silo."""

import pytest

from fondaco.client.answers import public_reason
from fondaco.client.boundary.frames import UNSAID
from fondaco.shared.errors import (
    BudgetError,
    CodecError,
    ConfigError,
    DataError,
    LedgerError,
    PrivacyError,
    RefusalError,
)


@pytest.mark.parametrize("error", [RefusalError, BudgetError, CodecError])
def test_public_reason_says_why_a_request_was_refused(error):
    assert public_reason(error("not planned")) == f"{error.__name__}: not planned"


def test_public_reason_names_no_path_of_a_ledger():
    assert "/home" not in public_reason(LedgerError("/home/shop/ledgers/s1.db is damaged"))


@pytest.mark.parametrize(
    "error",
    [
        DataError("row 3, column 'user_id': 'ann@example.org'"),
        ConfigError("customer numbers must lie in [0, 3)"),
        KeyError("ann"),
        ValueError("could not convert 'ann' to float"),
        MemoryError("3 customers"),
    ],
)
def test_public_reason_never_quotes_what_may_hold_data(error):
    text = public_reason(error)
    assert text == UNSAID


def test_error_tree_calls_every_refusal_private():
    assert all(issubclass(e, PrivacyError) for e in (BudgetError, LedgerError, RefusalError))
