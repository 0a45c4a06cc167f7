"""Records of the wire, and what travels about ledgers beside them."""

import json
import struct

import numpy as np
from fuzzing import Choices, as_bytes, bent, bent_tree, spelled

from fondaco.shared import codec
from fondaco.shared.chain.keys import Identity
from fondaco.shared.chain.notes import Checkpoint, checked_note, parse_note
from fondaco.shared.chain.witness import Call, Offer, Testimony
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import CodecError, FondacoError
from fondaco.shared.privacy.release import PrivateUpdate
from fondaco.shared.records import GlobalModel, MaskedUpdate, RoundRequest, SiloStatus

SHAPES = Shapes(
    n_items=5,
    head=2,
    update_dims={"popularity": 5, "gram": 3, "autoencoder": 4},
    n_parameters={"autoencoder": 4},
    fusion=(4, 3),
    ring_bits=64,
)
NAMES = {"plan_digest": "sha256:plan", "kind": "gram", "round_num": 2, "attempt": 1}
F4 = np.float32
OWNER = Identity.seeded(0, "fondaco/north")
NOTE = Checkpoint(origin="fondaco/north", size=3, root=b"r" * 32).signed_by(OWNER)
MODEL = GlobalModel(
    plan_digest="sha256:plan",
    catalogue_digest="sha256:catalogue",
    after_round=2,
    noisy_popularity=np.ones(5, F4),
    popularity=np.ones(5, F4),
    head=np.array([4, 0]),
    head_popularity=np.ones(2, F4),
    gram_factors=np.ones((2, 1), F4),
    gram_diagonal=np.ones(2, F4),
    gram_top=np.ones(2, F4),
    kernel_weights=np.ones(3, F4),
    item_in=np.ones((2, 1), F4),
    item_out=np.ones((5, 1), F4),
    spectrum=np.ones(2, F4),
    noise_edge=np.array(1, F4),
    parameters=np.ones(4, F4),
    fusion=np.ones((4, 3), F4),
)
RECORDS = (
    RoundRequest(
        **NAMES,
        code_digest="sha256:code",
        model_digest="",
        head=np.array([3, 1]),
        parameters=np.empty(0, F4),
    ),
    SiloStatus(
        silo_id="Läden Süd",
        plan_digest="sha256:plan",
        code_digest="sha256:code",
        ledger_seq=4,
        ledger_digest="sha256:head",
    ),
    PrivateUpdate(**NAMES, silo_id="north", debit_seq=5, values=np.array([-1, 2**40, -(2**62)])),
    MaskedUpdate(
        **NAMES,
        silo_id="north",
        debit_seq=5,
        participants="sha256:all",
        values=np.array([1, 2, 2**64 - 1], dtype=np.uint64),
    ),
    MODEL,
)
KINDS = tuple(type(record) for record in RECORDS)
BLOBS = tuple(codec.encode(record) for record in RECORDS)
CALL = Call(since=2, note=NOTE, lines=("{}",), offers=(Offer(note=NOTE, since=1, lines=("{}",)),))
TESTIMONY = Testimony(note=NOTE, lines=("{}",), cosigned={"x": "line"}, refused={"y": 3})
TEXTS = (CALL.to_bytes(), TESTIMONY.to_bytes())


def target(data):
    choices = Choices(data)
    (_record, _record, _about_ledgers, _note)[choices.number(4)](choices)


def _record(choices):
    kind = choices.pick(KINDS)
    match choices.number(3):
        case 0:
            blob = choices.rest()
        case 1:
            blob = bent(choices.pick(BLOBS), choices, *BLOBS)
        case _:
            blob = _other_header(choices.pick(BLOBS), choices)
    try:
        record = codec.decode(blob, kind, SHAPES)
    except CodecError:
        return
    again = codec.encode(record)
    assert codec.encode(codec.decode(again, kind, SHAPES)) == again


def _other_header(blob, choices):
    (length,) = struct.unpack_from("<I", blob, 4)
    header = bent_tree(json.loads(blob[8 : 8 + length]), choices)
    raw = as_bytes(spelled(header, choices))
    return b"FNDC" + struct.pack("<I", len(raw)) + raw + blob[8 + length :]


def _about_ledgers(choices):
    kind = choices.pick((Call, Testimony))
    text = choices.pick(TEXTS)
    if choices.number(2):
        blob = as_bytes(spelled(bent_tree(json.loads(text), choices), choices))
    else:
        blob = bent(text, choices, *TEXTS)
    try:
        said = kind.from_bytes(blob)
    except CodecError:
        return
    for note in (said.note, *(offer.note for offer in getattr(said, "offers", ()))):
        _read_note(note)


def _note(choices):
    blob = bent(NOTE.encode(), choices, NOTE.encode())
    _read_note(blob.decode("utf-8", choices.pick(("replace", "surrogateescape"))))


def _read_note(note):
    try:
        head, _ = parse_note(note)
        assert f"{note}\n".startswith(head.text())
        checked_note(note, OWNER.public, [OWNER.public])
    except FondacoError:
        return
