import json
import math
import struct
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fondaco.shared import codec
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import CodecError
from fondaco.shared.privacy.clipping import ClippedSum
from fondaco.shared.records import GlobalModel, PrivateUpdate, RoundRequest, SiloStatus

GOLDEN = Path(__file__).parents[1] / "golden"
SHAPES = Shapes(
    n_items=5,
    head=2,
    update_dims={"popularity": 5, "gram": 3, "autoencoder": 4},
    n_parameters={"autoencoder": 4},
    fusion=(4, 3),
)

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=60).filter(str.isprintable)
NUMBER = st.integers(0, codec.MAX_INT)


def _model(rank=1, n_blocks=2):
    def floats(*shape):
        return np.arange(1, 1 + math.prod(shape), dtype=np.float32).reshape(shape)

    return GlobalModel(
        plan_digest="sha256:plan",
        catalogue_digest="sha256:catalogue",
        after_round=2,
        noisy_popularity=floats(5),
        popularity=floats(5),
        head=np.array([4, 0]),
        head_popularity=floats(2),
        gram_factors=floats(2, rank),
        gram_diagonal=floats(2),
        gram_top=floats(2),
        kernel_weights=floats(n_blocks),
        item_in=floats(2, rank),
        item_out=floats(5, rank),
        spectrum=floats(2),
        noise_edge=floats(),
        parameters=floats(4),
        fusion=floats(4, 3),
    )


RECORDS = {
    "request": RoundRequest(
        plan_digest="sha256:plan",
        code_digest="sha256:code",
        kind="gram",
        round_num=2,
        attempt=1,
        model_digest="",
        head=np.array([3, 1]),
        parameters=np.empty(0, dtype=np.float32),
    ),
    "step": RoundRequest(
        plan_digest="sha256:plan",
        code_digest="sha256:code",
        kind="autoencoder",
        round_num=7,
        attempt=1,
        model_digest="sha256:model",
        head=np.empty(0, dtype=np.int64),
        parameters=np.array([0.5, -1.0, 0.0, 2.0], dtype=np.float32),
    ),
    "status": SiloStatus(
        silo_id="Läden Süd 7",
        plan_digest="sha256:plan",
        code_digest="sha256:code",
        ledger_seq=4,
        ledger_digest="sha256:head",
    ),
    "update": PrivateUpdate(
        silo_id="north",
        plan_digest="sha256:plan",
        kind="gram",
        round_num=2,
        attempt=1,
        debit_seq=5,
        values=np.array([-1, 2**40, -(2**62)]),
    ),
    "model": _model(),
}


def _same(one, two):
    return type(one) is type(two) and all(
        np.array_equal(getattr(one, f.name), getattr(two, f.name)) for f in fields(one)
    )


def _taken_apart(record):
    blob = codec.encode(record)
    (length,) = struct.unpack_from("<I", blob, 4)
    return json.loads(blob[8 : 8 + length]), blob[8 + length :]


def _put_together(header, body):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return b"FNDC" + struct.pack("<I", len(raw)) + raw + body


def _refused(blob, record_type, match=None):
    with pytest.raises(CodecError, match=match):
        codec.decode(blob, record_type, SHAPES)


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_record_survives_its_bytes(name):
    record = RECORDS[name]
    assert _same(codec.decode(codec.encode(record), type(record), SHAPES), record)


@given(TEXT, NUMBER, NUMBER, hnp.arrays(np.int64, 5, elements=INT64))
def test_private_update_survives_its_bytes_whatever_it_holds(text, round_num, seq, values):
    update = PrivateUpdate(
        silo_id=text,
        plan_digest=text,
        kind="popularity",
        round_num=round_num,
        attempt=1,
        debit_seq=seq,
        values=values,
    )
    assert _same(codec.decode(codec.encode(update), PrivateUpdate, SHAPES), update)


@given(st.integers(0, 5), st.data())
def test_global_model_survives_its_bytes_at_any_rank(rank, data):
    factors = data.draw(hnp.arrays(np.float32, (2, rank), elements=FLOAT32))
    model = replace(_model(rank), gram_factors=factors)
    assert _same(codec.decode(codec.encode(model), GlobalModel, SHAPES), model)


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_bytes_of_schema_2_never_change(name):
    """A change here breaks silos of another version: raise `codec.SCHEMA`, write new files."""
    assert codec.encode(RECORDS[name]) == (GOLDEN / f"{name}-2.bin").read_bytes()


@pytest.mark.parametrize(
    ("name", "record_type"),
    [
        ("request", RoundRequest),
        ("status", SiloStatus),
        ("update", PrivateUpdate),
        ("model", GlobalModel),
    ],
)
def test_bytes_of_schema_1_are_refused_by_number(name, record_type):
    _refused((GOLDEN / f"{name}-1.bin").read_bytes(), record_type, "schema 1 is unknown")


def test_bytes_do_not_depend_on_memory_layout():
    update = RECORDS["update"]
    swapped = replace(update, values=update.values.astype(">i8"))
    strided = replace(update, values=np.repeat(update.values, 2)[::2])
    assert codec.encode(swapped) == codec.encode(strided) == codec.encode(update)


def test_decoded_arrays_cannot_be_written():
    update = codec.decode(codec.encode(RECORDS["update"]), PrivateUpdate, SHAPES)
    with pytest.raises(ValueError, match="read-only"):
        update.values[0] = 0


@dataclass(frozen=True)
class _Smuggled(PrivateUpdate):
    n_customers: int = 7


@pytest.mark.parametrize(
    "thing",
    [
        ClippedSum(values=np.zeros(3, dtype=np.int64), sens_grid=1),
        SHAPES,
        _Smuggled(**{f.name: getattr(RECORDS["update"], f.name) for f in fields(PrivateUpdate)}),
    ],
)
def test_encode_refuses_all_but_the_wires_own_types(thing):
    with pytest.raises(CodecError, match="may not leave"):
        codec.encode(thing)


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_record_cut_anywhere_is_refused(name):
    blob = codec.encode(RECORDS[name])
    for length in range(len(blob)):
        _refused(blob[:length], type(RECORDS[name]))


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_trailing_bytes_are_refused(name):
    _refused(codec.encode(RECORDS[name]) + b"\x00", type(RECORDS[name]), "bytes do not hold")


@given(st.binary(max_size=200))
def test_noise_on_the_line_is_refused(blob):
    _refused(blob, PrivateUpdate)
    _refused(b"FNDC" + blob, PrivateUpdate)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_flipped_byte_is_refused_or_read_as_valid_but_never_crashes(position, flip):
    blob = bytearray(codec.encode(RECORDS["update"]))
    blob[position % len(blob)] ^= flip
    try:
        update = codec.decode(bytes(blob), PrivateUpdate, SHAPES)
    except CodecError:
        return
    assert update.values.shape == (3,)


def test_wrong_magic_is_refused():
    _refused(b"FNDD" + codec.encode(RECORDS["status"])[4:], SiloStatus, "not a fondaco record")


def test_giant_header_is_refused_before_it_is_read():
    _refused(b"FNDC" + struct.pack("<I", 2**32 - 1), SiloStatus, "not a fondaco record")


def test_record_of_another_type_is_refused():
    _refused(codec.encode(RECORDS["status"]), PrivateUpdate, "expected a PrivateUpdate")


def test_unknown_schema_is_refused():
    header, body = _taken_apart(RECORDS["status"])
    _refused(_put_together({**header, "schema": 3}, body), SiloStatus, "schema 3 is unknown")


def test_statistic_outside_of_the_plan_is_refused():
    _refused(codec.encode(replace(RECORDS["update"], kind="counts")), PrivateUpdate, "counts")


@pytest.mark.parametrize("depth", [100, 900, 940, 960, 970, 980, 990, 1000, 20_000])
@pytest.mark.parametrize("place", ["header", "field", "name", "dtype", "shape", "array", "key"])
def test_nested_json_bomb_is_refused_wherever_it_lies(depth, place):
    bomb = "[" * depth + "]" * depth
    header, body = _taken_apart(RECORDS["update"])
    if place == "field":
        header["fields"]["silo_id"] = "BOMB"
    elif place == "array":
        header["arrays"] = ["BOMB"]
    elif place == "key":
        header["arrays"][0]["more"] = "BOMB"
    else:
        header["arrays"][0]["shape" if place == "header" else place] = "BOMB"
    raw = bomb if place == "header" else json.dumps(header).replace('"BOMB"', bomb)
    _refused(_put_together(raw.encode(), body), PrivateUpdate)


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[]", b"NaN", b"{}", b'{"schema":1}', b"\xff\xfe", b"{", b"9" * 5000],
)
def test_header_that_is_no_record_is_refused(raw):
    _refused(_put_together(raw, b""), PrivateUpdate)


FIELD_CHANGES = [
    {"silo_id": None},
    {"silo_id": 7},
    {"silo_id": ["north"]},
    {"silo_id": "x" * (codec.MAX_TEXT + 1)},
    {"silo_id": "line\nbreak"},
    {"silo_id": "\x1b[2J"},
    {"silo_id": "\ud800"},
    {"silo_id": "nul\x00"},
    {"round_num": True},
    {"round_num": 1.0},
    {"round_num": "1"},
    {"round_num": -1},
    {"round_num": 2**53 + 1},
    {"attempt": 10**4000},
    {"surprise": 1},
]


@pytest.mark.parametrize("change", FIELD_CHANGES, ids=lambda c: str(c)[:30])
def test_field_of_another_kind_is_refused(change):
    header, body = _taken_apart(RECORDS["update"])
    header["fields"] |= change
    _refused(_put_together(header, body), PrivateUpdate)


def test_missing_field_is_refused():
    header, body = _taken_apart(RECORDS["update"])
    del header["fields"]["debit_seq"]
    _refused(_put_together(header, body), PrivateUpdate, "fields of PrivateUpdate")


ARRAY_CHANGES = [
    {"name": "secret"},
    {"dtype": "<f8"},
    {"dtype": ">i8"},
    {"dtype": "|O"},
    {"dtype": "<i4", "shape": [6]},
    {"dtype": None},
    {"shape": [4]},
    {"shape": [1, 3]},
    {"shape": [-1]},
    {"shape": [3.0]},
    {"shape": [True]},
    {"shape": []},
    {"shape": 3},
    {"shape": [10**18]},
    {"order": "F"},
]


@pytest.mark.parametrize("change", ARRAY_CHANGES, ids=str)
def test_array_announced_otherwise_is_refused(change):
    header, body = _taken_apart(RECORDS["update"])
    header["arrays"][0] |= change
    _refused(_put_together(header, body), PrivateUpdate)


def test_array_too_many_is_refused():
    header, body = _taken_apart(RECORDS["update"])
    header["arrays"] *= 2
    _refused(_put_together(header, body * 2), PrivateUpdate)


def test_array_missing_is_refused():
    header, _ = _taken_apart(RECORDS["update"])
    _refused(_put_together({**header, "arrays": []}, b""), PrivateUpdate)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["popularity", "item_out", "noise_edge", "parameters", "fusion"])
def test_number_that_is_not_finite_is_refused(name, value):
    bad = np.array(getattr(_model(), name))
    bad.flat[-1] = value
    _refused(codec.encode(replace(_model(), **{name: bad})), GlobalModel, f"{name!r} holds")


def test_free_dimension_ends_at_the_catalogue():
    assert codec.decode(codec.encode(_model(rank=5)), GlobalModel, SHAPES).item_in.shape == (2, 5)
    _refused(codec.encode(_model(rank=6)), GlobalModel, "got array gram_factors")


def test_request_for_popularity_carries_no_head():
    request = replace(RECORDS["request"], kind="popularity")
    _refused(codec.encode(request), RoundRequest, "got array head")


@pytest.mark.parametrize("size", [0, 3, 5])
def test_request_carries_the_parameters_of_its_own_model_and_no_others(size):
    parameters = np.zeros(size, dtype=np.float32)
    wrong = replace(RECORDS["step"], parameters=parameters)
    _refused(codec.encode(wrong), RoundRequest, "got array parameters")
    if size:
        of_a_gram = replace(RECORDS["request"], parameters=parameters)
        _refused(codec.encode(of_a_gram), RoundRequest, "got array parameters")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_request_with_parameters_that_ran_away_is_refused(value):
    ran_away = replace(RECORDS["step"], parameters=np.full(4, value, dtype=np.float32))
    _refused(codec.encode(ran_away), RoundRequest, "'parameters' holds")


@pytest.mark.parametrize("shape", [(4,), (3, 3), (4, 2), (12,)])
def test_model_with_other_parameters_or_fusion_than_planned_is_refused(shape):
    wrong = np.zeros(shape, dtype=np.float32)
    _refused(codec.encode(replace(_model(), fusion=wrong)), GlobalModel, "got array fusion")
    if shape != (4,):
        model = replace(_model(), parameters=wrong)
        _refused(codec.encode(model), GlobalModel, "got array parameters")
