"""Bytes of masked sums' messages: one spelling each, and nothing else is let in."""

import base64
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from message_samples import KINDS, each_kind, messages, samples

from fondaco.shared.chain.canonical import canonical_json
from fondaco.shared.errors import CodecError
from fondaco.shared.secagg.keys import Secrets, commitment, mask_keys_of, share_digest
from fondaco.shared.secagg.messages import (
    MAX_ENTRIES,
    MAX_TEXT,
    Delivery,
    Hello,
    Roster,
    Survivors,
    Task,
)
from fondaco.shared.secagg.parcels import Route, pair_key, post_quantum_secret, self_key

GOLDEN = Path(__file__).parents[2] / "golden" / "masked-sum-1.json"
SAMPLES = samples()
MAX_BYTES = Delivery.max_bytes
of_each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def _read_or_refuse(kind, blob):
    """Whatever comes: a message that is spelled like that, or `CodecError`."""
    try:
        message = kind.from_bytes(blob)
    except CodecError:
        return None
    assert message.to_bytes() == blob
    return message


def golden():
    """Return what the golden file must hold: messages, digests and keys."""
    task, roster = SAMPLES[Task], SAMPLES[Roster]
    seed, secrets = bytes(range(16)), SAMPLES[Secrets]
    route = Route(task=task, roster=roster, sender="silo-000", receiver="silo-001")
    keys = mask_keys_of(seed, hybrid=False)
    hybrid_keys = mask_keys_of(seed, hybrid=True)
    values = {
        "task digest": task.digest,
        "roster digest": roster.digest,
        "survivors digest": SAMPLES[Survivors].digest,
        "signed hello": SAMPLES[Hello].signed_bytes(),
        "commitment": commitment(seed),
        "digest of a share": share_digest("mask", "silo-001", seed),
        "mask key": keys.public()[0],
        "hybrid mask key": hybrid_keys.public()[0],
        "start of the hybrid's ML-KEM key": hybrid_keys.public()[1][:32],
        "share key": secrets.share_keys.public()[0],
        "key of a pair": pair_key(route, keys, "silo-001", "sha256:participants", b""),
        "key of a hybrid pair": pair_key(route, keys, "silo-001", "sha256:participants", b"pq"),
        "post-quantum secret": post_quantum_secret(route, seed),
        "own key": self_key(task, roster.digest, "silo-000", seed, "sha256:participants"),
    }
    texts = {name: v.hex() if isinstance(v, bytes) else v for name, v in values.items()}
    spelled = {kind.__name__: SAMPLES[kind].to_bytes().decode() for kind in KINDS}
    return {"messages": spelled, "derived": texts}


def test_messages_and_keys_are_those_of_the_golden_file():
    """Whoever changes one of them changes the protocol: raise `DOMAIN` and write a new file."""
    known = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden() == known


@of_each_kind
def test_sample_is_read_back(kind):
    blob = SAMPLES[kind].to_bytes()
    assert kind.from_bytes(blob) == SAMPLES[kind]


@settings(deadline=None, max_examples=150)
@given(data=st.data(), kind=each_kind)
def test_any_message_is_read_back(data, kind):
    message = data.draw(messages(kind))
    again = kind.from_bytes(message.to_bytes())
    assert again == message
    assert again.to_bytes() == message.to_bytes()


@settings(deadline=None, max_examples=150)
@given(first=st.data(), kind=each_kind)
def test_different_messages_have_different_bytes(first, kind):
    one, other = first.draw(messages(kind)), first.draw(messages(kind))
    assert (one == other) == (one.to_bytes() == other.to_bytes())


@settings(deadline=None, max_examples=300)
@given(blob=st.binary(max_size=200), kind=each_kind)
def test_arbitrary_bytes_are_refused(blob, kind):
    assert _read_or_refuse(kind, blob) is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=200)
@given(value=_json, kind=each_kind)
def test_arbitrary_json_is_refused(value, kind):
    assert _read_or_refuse(kind, json.dumps(value).encode()) is None


@settings(deadline=None, max_examples=400)
@given(data=st.data(), kind=each_kind, other=each_kind)
def test_damaged_bytes_are_refused_or_another_message(data, kind, other):
    """Cut, doubled, overwritten, or spliced with another message."""
    blob = SAMPLES[kind].to_bytes()
    start = data.draw(st.integers(0, len(blob)))
    end = data.draw(st.integers(start, min(len(blob), start + 20)))
    patch = data.draw(
        st.binary(max_size=8) | st.just(blob[start:end] * 2) | st.just(SAMPLES[other].to_bytes())
    )
    _read_or_refuse(kind, blob[:start] + patch + blob[end:])


def _places(value, path=()):
    """Return paths to all nodes of a JSON value."""
    yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _places(part, (*path, name))


def _replaced(value, path, new):
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copied


@settings(deadline=None, max_examples=400)
@given(data=st.data(), kind=each_kind, new=_json)
def test_message_with_another_value_inside_is_refused_or_another_message(data, kind, new):
    raw = json.loads(SAMPLES[kind].to_bytes())
    path = data.draw(st.sampled_from(list(_places(raw))))
    changed = _replaced(raw, path, new)
    blob = json.dumps(changed, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    _read_or_refuse(kind, blob.encode(errors="surrogatepass"))


@of_each_kind
def test_field_too_many_or_too_few_is_refused(kind):
    raw = json.loads(SAMPLES[kind].to_bytes())
    for name in raw:
        fewer = {key: value for key, value in raw.items() if key != name}
        assert _read_or_refuse(kind, canonical_json(fewer).encode()) is None
    assert _read_or_refuse(kind, canonical_json({**raw, "more": 1}).encode()) is None


ODD_NUMBERS = ["1.0", "1e0", "NaN", "Infinity", "-Infinity", "1e999", "9007199254740993"]
ODD_NUMBERS += ["-1", "-0", "01", "true", "null", '"1"', "[1]", "{}"]


@pytest.mark.parametrize(
    "number",
    [*ODD_NUMBERS, "9" * 400, "9" * 5000],
    ids=lambda number: number[:10],
)
def test_odd_number_is_refused(number):
    blob = SAMPLES[Task].to_bytes().replace(b'"attempt":2', b'"attempt":' + number.encode())
    assert number.encode() in blob
    assert _read_or_refuse(Task, blob) is None


@pytest.mark.parametrize(
    "text",
    ["\\u0000", "\\n", "\\u202e", "\\ud800", "\\u00e9", "a" * (MAX_TEXT + 1), "\x7f", "\u2028"],
    ids=lambda text: ascii(text)[:10],
)
def test_odd_text_is_refused(text):
    blob = SAMPLES[Task].to_bytes().replace(b'"run_id":"run"', f'"run_id":"{text}"'.encode())
    assert blob != SAMPLES[Task].to_bytes()
    assert _read_or_refuse(Task, blob) is None


@pytest.mark.parametrize(
    "text", ["=", "AA", "AA=", "AB==", "AA==\\n", "AA==AA==", "A A=", "-_8=", "é"]
)
def test_odd_base64_is_refused(text):
    """ "AB==" decodes like "AA==", which alone is the spelling of one zero byte."""
    blob = SAMPLES[Hello].to_bytes().replace(b'"mask_kem":""', f'"mask_kem":"{text}"'.encode())
    assert blob != SAMPLES[Hello].to_bytes()
    assert _read_or_refuse(Hello, blob) is None


@pytest.mark.parametrize(
    "spell",
    [
        lambda blob: b" " + blob,
        lambda blob: blob + b"\n",
        lambda blob: blob.replace(b":", b": "),
        lambda blob: b"\xef\xbb\xbf" + blob,
        lambda blob: blob.decode().encode("utf-16"),
        lambda blob: blob.replace(b'"run"', b'"\\u0072un"'),
        lambda blob: blob.replace(b"{", b'{"attempt":2,', 1),
        lambda blob: json.dumps(dict(reversed(json.loads(blob).items()))).encode(),
    ],
)
def test_other_spelling_of_the_same_message_is_refused(spell):
    blob = spell(SAMPLES[Task].to_bytes())
    assert blob != SAMPLES[Task].to_bytes()
    assert _read_or_refuse(Task, blob) is None


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"task":', b"[{", b'{"hellos":['])
@of_each_kind
def test_deep_nesting_is_refused(kind, opening):
    assert _read_or_refuse(kind, opening * 200_000) is None


def test_more_entries_than_allowed_are_refused():
    parts = {f"silo-{num:04d}": b"" for num in range(MAX_ENTRIES + 1)}
    full = Delivery(participants=dict(list(parts.items())[:MAX_ENTRIES]), parcels={})
    assert Delivery.from_bytes(full.to_bytes()) == full
    with pytest.raises(CodecError, match="at most"):
        Delivery.from_bytes(Delivery(participants=parts, parcels={}).to_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("filler", [b"[],", b"{},"], ids=repr)
def test_memory_stays_within_thirty_times_the_largest_message(filler):
    """The worst that JSON can do: 16 MiB of empty lists."""
    blob = b"[" + filler * ((MAX_BYTES - 10) // len(filler)) + b"0]"
    tracemalloc.start()
    assert _read_or_refuse(Delivery, blob) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * MAX_BYTES


def test_largest_honest_messages_fit():
    """1000 silos with the hybrid: parcels of 2.3 kB, hellos of 4 kB."""
    parcel = 2 * (1088 + 48)
    entry = len(base64.b64encode(bytes(parcel))) + 1030
    hello = len(base64.b64encode(bytes(2 * 1184 + 5 * 64))) + 3 * MAX_TEXT
    assert 1000 * entry < MAX_BYTES
    assert 1000 * hello < MAX_BYTES
