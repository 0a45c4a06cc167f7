"""The three byte strings that every Flower message of ours holds; the only flwr import in shared.

A courier needs no more than this: it carries records and never reads them.
"""

from typing import NamedTuple

from flwr.app import ConfigRecord, RecordDict

from .errors import CodecError

_FLOWER_KEY = "fondaco"


class Parts(NamedTuple):
    """What a Flower message holds, each empty where nothing is to be said.

    Attributes:
        record: an encoded record.
        ledger: an encoded `Call` or `Testimony`.
        masking: an encoded message of a masked sum.
    """

    record: bytes = b""
    ledger: bytes = b""
    masking: bytes = b""


def to_message(record: bytes, ledger: bytes = b"", masking: bytes = b"") -> RecordDict:
    """Return encoded bytes as the content of a Flower message.

    Args:
        record: an encoded record.
        ledger: an encoded `Call` or `Testimony` that goes along with it.
        masking: an encoded message of a masked sum.
    """
    parts = ConfigRecord({"record": record, "ledger": ledger, "masking": masking})
    return RecordDict({_FLOWER_KEY: parts})


def from_message(content: RecordDict) -> Parts:
    """Return what is in a Flower message.

    Raises:
        CodecError: the message holds anything else.
    """
    records = dict(content)
    record = records.get(_FLOWER_KEY)
    if set(records) != {_FLOWER_KEY} or not isinstance(record, ConfigRecord):
        raise CodecError(f"message holds {sorted(records)}, expected only {_FLOWER_KEY!r}")
    parts = [record.get(name) for name in Parts._fields]
    blobs = [part for part in parts if isinstance(part, bytes)]
    if not len(record) == len(Parts._fields) == len(blobs):
        raise CodecError(f"message must hold fields of bytes, exactly {', '.join(Parts._fields)}")
    return Parts(*blobs)
