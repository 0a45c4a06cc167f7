"""Encoded records in Flower's messages."""

import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fondaco.shared.errors import CodecError
from fondaco.shared.parts import from_message, to_message


def test_message_carries_the_bytes_and_nothing_else():
    content = to_message(b"blob", b"about ledgers", b"about masks")
    assert from_message(content) == (b"blob", b"about ledgers", b"about masks")
    assert [list(record) for record in content.values()] == [["record", "ledger", "masking"]]


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"fondaco": ArrayRecord()}),
        RecordDict({"fondaco": ConfigRecord()}),
        RecordDict({"fondaco": ConfigRecord({"record": "text"})}),
        RecordDict({"fondaco": ConfigRecord({"record": [b"a", b"b"]})}),
        RecordDict({"fondaco": ConfigRecord({"record": b""})}),
        RecordDict({"fondaco": ConfigRecord({"record": b"", "ledger": ""})}),
        RecordDict({"fondaco": ConfigRecord({"record": b"", "ledger": b""})}),
        RecordDict({"fondaco": ConfigRecord({"record": b"", "ledger": b"", "n_users": 3})}),
        RecordDict(
            {"fondaco": ConfigRecord({"record": b"", "ledger": b"", "masking": b"", "more": b""})}
        ),
        RecordDict({"fondaco": ConfigRecord({"record": b""}), "more": ConfigRecord()}),
        RecordDict({"other": ConfigRecord({"record": b""})}),
    ],
    ids=str,
)
def test_message_with_anything_else_is_refused(content):
    with pytest.raises(CodecError):
        from_message(content)
