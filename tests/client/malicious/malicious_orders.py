"""Everything that a malicious server sends, each by its name."""

import struct
from dataclasses import replace

import numpy as np
from builders import SERVER

from fondaco.shared import codec
from fondaco.shared.chain.notes import cosign, parse_note
from fondaco.shared.errors import CodecError, RefusalError

OTHER = "sha256:" + "0" * 64

# Changed fields of a request, and the code of the refusal.
ORDERS = {
    "other plan": ({"plan_digest": OTHER}, "other-plan"),
    "no plan": ({"plan_digest": ""}, "other-plan"),
    "other code digest": ({"code_digest": OTHER}, "other-code"),
    "more rounds": ({"round_num": 3}, "not-in-plan"),
    "round zero": ({"round_num": 0}, "not-in-plan"),
    "round of another kind": ({"round_num": 2}, "not-in-plan"),
    "the last round there is": ({"round_num": codec.MAX_INT}, "not-in-plan"),
}
HEADS = {
    "duplicated head items": [4, 2, 2, 1],
    "head out of range": [4, 2, 0, 5],
    "negative head": [4, 2, 0, -1],
    "huge head": [4, 2, 0, 2**62],
}

COHORTS = {
    "a single silo": {"n_silos": 1, "n_min": 1, "t_collude": 0},
    "a smaller cohort": {"n_silos": 10, "n_min": 2, "t_collude": 1},
    "nobody colludes": {"n_silos": 10, "n_min": 9, "t_collude": 0},
    "more than the roster": {"n_silos": 11, "n_min": 9, "t_collude": 1},
}


def _note_of_other(silo):
    with silo.ledger() as ledger:
        head = replace(parse_note(ledger.chain.note())[0], origin="fondaco/silo-2")
    note = head.signed_by(silo.make_owner("silo-2"))
    signers = [SERVER, silo.make_owner("silo-3"), silo.make_owner("silo-4")]
    return note + "".join(cosign(note, signer, 5) for signer in signers)


NOTES = {
    "no note": lambda silo: "",
    "no cosignatures": lambda silo: silo.witnessed().split("\u2014 fondaco-coordinator")[0],
    "one is missing": lambda silo: silo.witnessed("silo-2"),
    "own cosignature": lambda silo: silo.witnessed("silo-2", "north"),
    "foreign cosignature": lambda silo: silo.witnessed("silo-2", "stranger"),
    "another silo's note": _note_of_other,
    "no text": lambda silo: "\x00",
    "long": lambda silo: silo.witnessed() + "\u2014 x AAAA\n" * 9000,
}

FIELDS = {
    "metrics": {"kind": "metrics"},
    "odd kind": {"kind": "popularity\x00"},
    "separator": {"kind": "a\u2028b"},
    "half a character": {"kind": "\ud800"},
    "path": {"kind": "../../popularity"},
    "long kind": {"kind": "x" * 100_000},
    "kind of a number": {"kind": 3},
    "negative round": {"round_num": -1},
    "huge round": {"round_num": 2**70},
    "half a round": {"round_num": 1.5},
    "true": {"attempt": True},
    "null": {"attempt": None},
    "huge attempt": {"attempt": 2**63},
    "more fields": {"sigma": 1},
}

BYTES = {
    "nothing": lambda blob: b"",
    "garbage": lambda blob: bytes(range(256)),
    "torn": lambda blob: blob[:-1],
    "longer": lambda blob: blob + b"\x00",
    "oversize": lambda blob: blob + bytes(1 << 24),
    "other magic": lambda blob: b"XXXX" + blob[4:],
    "endless header": lambda blob: blob[:4] + b"\xff" * 4 + blob[8:],
    "deep": lambda blob: blob[:4] + struct.pack("<I", 60_000) + b"[" * 60_000,
    "a status": lambda blob: blob.replace(b"RoundRequest", b"SiloStatus--"),
}

CALLS = {
    "garbage": b"\xff",
    "no JSON": b"{",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "other fields": b'{"since":0}',
    "float": b'{"since":0.5,"note":"","lines":[],"offers":[]}',
    "numbers": b'{"since":0,"note":"","lines":[1],"offers":[]}',
}

MODELS_SENT = {
    "another plan": ({"plan_digest": OTHER}, RefusalError),
    "another catalogue": ({"catalogue_digest": OTHER}, RefusalError),
    "duplicated head": ({"head": np.array([1, 1, 2, 3])}, RefusalError),
    "head out of range": ({"head": np.array([0, 1, 2, 9])}, RefusalError),
    "not finite": ({"popularity": np.full(5, np.nan, dtype=np.float32)}, CodecError),
    "infinite": ({"item_out": np.full((5, 1), np.inf, dtype=np.float32)}, CodecError),
    "of another length": ({"popularity": np.zeros(6, dtype=np.float32)}, CodecError),
    "of another type": ({"popularity": np.zeros(5)}, CodecError),
}
