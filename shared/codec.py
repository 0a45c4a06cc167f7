"""Records <-> bytes: the only encoder of what crosses the wire.

A record is `FNDC`, the header's length, a JSON header and raw little-endian arrays. Names,
dtypes, shapes and lengths are checked against what the receiver expects *before* an array is
built; unknown fields are refused; nothing is ever unpickled.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import CodecError
from .models.terms import PlannedModels
from .privacy.plan import RunPlan
from .records import GlobalModel, MaskedUpdate, PrivateUpdate, RoundRequest, SiloStatus

SCHEMA = 2
MAGIC = b"FNDC"
MAX_HEADER_BYTES = 64 * 1024
FEW = -2
"""In a shape: any length up to MAX_FEW, however short the catalogue is."""
MAX_FEW = 64
MAX_TEXT = 1024
MAX_INT = 2**53
_PREFIX = struct.Struct("<4sI")

Record = RoundRequest | SiloStatus | PrivateUpdate | MaskedUpdate | GlobalModel
R = TypeVar("R", RoundRequest, SiloStatus, PrivateUpdate, MaskedUpdate, GlobalModel)


@dataclass(frozen=True)
class ArraySpec:
    """What an array must be: numpy dtype text, and a shape; -1 is any length, FEW a short one."""

    dtype: str
    shape: tuple[int, ...]

    def admits(self, dtype: str, shape: tuple[int, ...], max_length: int) -> bool:
        """Return whether an announced array is the expected one."""
        return (
            dtype == self.dtype
            and len(shape) == len(self.shape)
            and all(
                got == want or 0 <= got <= {-1: max_length, FEW: MAX_FEW}.get(want, -1)
                for got, want in zip(shape, self.shape, strict=True)
            )
        )


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The public lengths, from the plan, that every record's arrays must have.

    Attributes:
        n_items: catalogue length.
        head: items of the Gram.
        update_dims: statistic -> numbers released.
        n_parameters: iterative model -> its parameters.
        fusion: (n_buckets, n_parts).
        ring_bits: of masked numbers, 0 if there are none.
    """

    n_items: int
    head: int
    update_dims: Mapping[str, int]
    n_parameters: Mapping[str, int]
    fusion: tuple[int, int]
    ring_bits: int = 0

    def __hash__(self) -> int:
        dims = tuple(sorted(self.update_dims.items())), tuple(sorted(self.n_parameters.items()))
        return hash((self.n_items, self.head, self.fusion, self.ring_bits, *dims))

    @classmethod
    def of_plan(cls, plan: RunPlan) -> "Shapes":
        """Return the lengths that `plan` fixes."""
        dims = {event.kind: event.dim for event in plan.releases}
        planned = PlannedModels.of_plan(plan)
        return cls(
            n_items=plan.n_items,
            head=plan.head,
            update_dims=dims,
            n_parameters=planned.n_parameters,
            fusion=planned.fusion_shape,
            ring_bits=plan.ring_bits,
        )

    def of(self, record_type: type[Record], kind: str) -> dict[str, ArraySpec]:
        """Return the arrays of a record about statistic `kind`.

        Raises:
            CodecError: the statistic is not in the plan.
        """
        if record_type is GlobalModel:
            items, head = (self.n_items,), (self.head,)
            return {
                "noisy_popularity": ArraySpec("<f4", items),
                "popularity": ArraySpec("<f4", items),
                "head": ArraySpec("<i8", head),
                "head_popularity": ArraySpec("<f4", head),
                "gram_factors": ArraySpec("<f4", (*head, -1)),
                "gram_diagonal": ArraySpec("<f4", head),
                "gram_top": ArraySpec("<f4", head),
                "kernel_weights": ArraySpec("<f4", (FEW,)),
                "item_in": ArraySpec("<f4", (*head, -1)),
                "item_out": ArraySpec("<f4", (*items, -1)),
                "spectrum": ArraySpec("<f4", head),
                "noise_edge": ArraySpec("<f4", ()),
                "parameters": ArraySpec("<f4", (sum(self.n_parameters.values()),)),
                "fusion": ArraySpec("<f4", self.fusion),
            }
        if record_type is SiloStatus:
            return {}
        if kind not in self.update_dims:
            raise CodecError(f"statistic {kind!r} is none of {sorted(self.update_dims)}")
        if record_type is RoundRequest:
            return {
                "head": ArraySpec("<i8", (self.head if kind == "gram" else 0,)),
                "parameters": ArraySpec("<f4", (self.n_parameters.get(kind, 0),)),
            }
        if record_type is PrivateUpdate:
            return {"values": ArraySpec("<i8", (self.update_dims[kind],))}
        if not self.ring_bits:
            raise CodecError("this plan masks nothing")
        return {"values": ArraySpec(f"<u{self.ring_bits // 8}", (self.update_dims[kind],))}

    def most_bytes(self, rank: int = MAX_INT) -> int:
        """Return the most bytes that the arrays of any record that a silo is sent may have.

        Args:
            rank: of factors, which are never wider than the head.
        """
        longest = {-1: min(rank, self.head), FEW: MAX_FEW}

        def most(spec: ArraySpec) -> int:
            return math.prod(longest.get(n, n) for n in spec.shape) * np.dtype(spec.dtype).itemsize

        models = self.of(GlobalModel, "").values()
        requests = [self.of(RoundRequest, kind).values() for kind in self.update_dims]
        return max(sum(map(most, specs)) for specs in (models, *requests))


def encode(record: Record) -> bytes:
    """Return `record` as bytes; equal records give equal bytes.

    Raises:
        CodecError: it is none of the types that may cross the wire.
    """
    if type(record) not in get_args(Record):
        raise CodecError(f"a {type(record).__name__} may not leave")
    texts: dict[str, str | int] = {}
    arrays: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, np.ndarray):
            little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
            announced = {"name": field.name, "dtype": little.dtype.str, "shape": list(value.shape)}
            arrays.append(announced)
            chunks.append(little.tobytes())
        else:
            texts[field.name] = value
    header = {"schema": SCHEMA, "type": type(record).__name__, "fields": texts, "arrays": arrays}
    raw = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return b"".join([_PREFIX.pack(MAGIC, len(raw)), raw, *chunks])


def decode(blob: bytes, record_type: type[R], shapes: Shapes) -> R:
    """Return the record in `blob`.

    Raises:
        CodecError: naming the first thing that is not as expected.
    """
    header, offset = _read_header(blob)
    if header["type"] != record_type.__name__:
        raise CodecError(f"got a {header['type']!r}, expected a {record_type.__name__}")
    scalars = _checked_fields(header["fields"], record_type)
    specs = shapes.of(record_type, str(scalars.get("kind", "")))
    arrays = _read_arrays(blob, offset, header["arrays"], specs, shapes.n_items)
    parts: dict[str, Any] = {**scalars, **arrays}
    return record_type(**parts)


def _read_header(blob: bytes) -> tuple[dict[str, Any], int]:
    if len(blob) < _PREFIX.size:
        raise CodecError(f"{len(blob)} bytes are too few for a record")
    magic, length = _PREFIX.unpack_from(blob)
    if magic != MAGIC or length > MAX_HEADER_BYTES:
        raise CodecError("not a fondaco record")
    try:
        header = json.loads(blob[_PREFIX.size : _PREFIX.size + length])
    except (ValueError, RecursionError) as error:
        raise CodecError("the header is no JSON") from error
    wanted = {"schema": int, "type": str, "fields": dict, "arrays": list}
    if not isinstance(header, dict) or {k: type(v) for k, v in header.items()} != wanted:
        raise CodecError(f"the header must hold exactly {sorted(wanted)}")
    if header["schema"] != SCHEMA:
        raise CodecError(f"schema {header['schema']} is unknown; this code reads {SCHEMA}")
    return header, _PREFIX.size + length


def _checked_fields(got: dict[str, Any], record_type: type[Record]) -> dict[str, str | int]:
    wanted = {f.name: f.type for f in fields(record_type) if f.type in (str, int)}
    if {name: type(value) for name, value in got.items()} != wanted:
        raise CodecError(f"fields of {record_type.__name__} must be {sorted(wanted)}")
    for name, value in got.items():
        if isinstance(value, str) and (len(value) > MAX_TEXT or not value.isprintable()):
            raise CodecError(f"field {name!r} is longer than {MAX_TEXT} or holds odd characters")
        if isinstance(value, int) and not 0 <= value <= MAX_INT:
            raise CodecError(f"field {name!r} must lie between 0 and {MAX_INT}")
    return got


def _read_arrays(
    blob: bytes,
    offset: int,
    announced: list[Any],
    specs: Mapping[str, ArraySpec],
    max_length: int,
) -> dict[str, NDArray[Any]]:
    """Check every announcement and the total length, then build the arrays."""
    layout: list[tuple[str, str, tuple[int, ...]]] = []
    for entry, (name, spec) in zip(announced, specs.items(), strict=False):
        wanted = {"name": str, "dtype": str, "shape": list}
        if not isinstance(entry, dict) or {k: type(v) for k, v in entry.items()} != wanted:
            raise CodecError(f"array {name!r} must be announced by {sorted(wanted)}")
        shape = entry["shape"]
        if not all(type(n) is int for n in shape):
            raise CodecError(f"array {name!r} has a shape that is not of integers")
        if entry["name"] != name or not spec.admits(entry["dtype"], tuple(shape), max_length):
            got = f"{entry['name']} {entry['dtype']} {shape}"
            raise CodecError(f"got array {got[:120]}, expected {name} {spec.dtype} {spec.shape}")
        layout.append((name, spec.dtype, tuple(shape)))
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for _, dtype, shape in layout]
    if len(announced) != len(specs) or offset + sum(sizes) != len(blob):
        raise CodecError(f"{len(blob)} bytes do not hold the {len(specs)} expected arrays")
    arrays: dict[str, NDArray[Any]] = {}
    for (name, dtype, shape), size in zip(layout, sizes, strict=True):
        arrays[name] = np.frombuffer(blob[offset : offset + size], dtype=dtype).reshape(shape)
        offset += size
        if np.issubdtype(arrays[name].dtype, np.floating) and not np.isfinite(arrays[name]).all():
            raise CodecError(f"array {name!r} holds numbers that are not finite")
    return arrays
