"""What does masking cost, beside Flower's SecAgg+ masks and TenSEAL's encryption?

`python -m fondaco.simulation.benchmarks.masked_sum`: one silo's vector is masked under one key
per silo, in rings of 32 and 64 bits; then a smaller one goes through our masks, through the mask
generator of Flower's SecAgg+ as its client calls it, and through CKKS (the extra `bench`). Times
are processor time of one thread; others' load only adds to it, so the least is held against the
target, and what the cipher alone takes in the same minute stands beside it.
"""

import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from flwr.common.secure_aggregation import ndarrays_arithmetic as flower
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs
from numpy.typing import NDArray
from rich.markup import escape

from fondaco.shared.console import Bars, err_console
from fondaco.shared.secagg.masks import add_masks

from .common import Row, record

TARGET_S = 1e-9
"""For each number and key in a ring of 32 bits: 20 million under 30 keys take 0.6 s."""
CIPHER = "ChaCha20 alone, 32 bits"
OURS = "ours, ring of"
FLOWER = "Flower SecAgg+ masks"
FLOWER_RANGE = 1 << 32
"""Flower's default modulus."""
CHUNK = 1 << 18
DEGREE = 8192
CKKS = {
    "TenSEAL CKKS, secret key": ("SYMMETRIC", (60, 40, 40)),
    "TenSEAL CKKS, public key": ("ASYMMETRIC", (60, 40, 40, 60)),
}
"""Encryption and bits of the moduli: as NVIDIA FLARE sets them, and with a level to multiply in."""
SCALE_BITS = 40
UNITS = {
    "seconds": "s",
    "least": "s",
    "target": "s",
    "rate": "GB/s",
    "memory": "bytes",
    "sent": "B/number",
    "per_million": "s",
    "ratio": "1",
    "seed_bits": "bits",
}
_NONE = float("nan")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Times:
    """Processor time of each repetition [s], what one allocates at most, and sends per number.

    Attributes:
        memory: by Python and numpy, besides the vector itself [bytes]; NaN where C++ allocates.
        sent: bytes per number.
    """

    seconds: list[float]
    memory: float
    sent: float


class Keys:
    """Mask keys and signs, each key given out once."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def take(self, n_keys: int) -> list[tuple[bytes, int]]:
        """Return `n_keys` new ones; signs take turns."""
        return [(self._rng.bytes(32), -1 if num % 2 else 1) for num in range(n_keys)]


def measure_ours(dim: int, n_keys: int, ring_bits: int, repeats: int, seed: int = 0) -> Times:
    """Return how long a vector of `dim` numbers takes to be masked under `n_keys` keys."""
    keys = Keys(seed)
    values = np.zeros(dim, dtype=f"<u{ring_bits // 8}")
    values += 1  # its pages are there before the clock runs
    seconds = [_seconds(partial(add_masks, values, keys.take(n_keys))) for _ in range(repeats)]
    memory = _peak_bytes(partial(add_masks, values, keys.take(n_keys)))
    return Times(seconds=seconds, memory=memory, sent=values.itemsize)


def measure_cipher(dim: int, n_keys: int, repeats: int, seed: int = 0) -> Times:
    """Return the same for the keystreams alone, which nobody adds: the floor under ours."""
    keys = Keys(seed)
    zeros, stream = bytes(CHUNK), bytearray(CHUNK)

    def encrypt(taken: list[tuple[bytes, int]]) -> None:
        for key, _ in taken:
            cipher = Cipher(algorithms.ChaCha20(key, nonce=bytes(16)), mode=None).encryptor()
            for start in range(0, 4 * dim, CHUNK):
                cipher.update_into(zeros[: min(CHUNK, 4 * dim - start)], stream)

    seconds = [_seconds(partial(encrypt, keys.take(n_keys))) for _ in range(repeats)]
    return Times(seconds=seconds, memory=_peak_bytes(partial(encrypt, keys.take(n_keys))), sent=4)


def measure_flower(dim: int, n_keys: int, repeats: int, seed: int = 0) -> Times:
    """Return the same for Flower's masks, which go through 64-bit integers."""
    keys = Keys(seed)
    values = np.ones(dim, dtype=np.int64)

    def mask(taken: list[tuple[bytes, int]]) -> NDArray[np.int64]:
        masked = [values]
        for key, sign in taken:
            masks = pseudo_rand_gen(key, FLOWER_RANGE, [(dim,)])
            combine = flower.parameters_addition if sign == 1 else flower.parameters_subtraction
            masked = combine(masked, masks)
        return flower.parameters_mod(masked, FLOWER_RANGE)[0]

    seconds = [_seconds(partial(mask, keys.take(n_keys))) for _ in range(repeats)]
    memory = _peak_bytes(partial(mask, keys.take(n_keys)))
    return Times(seconds=seconds, memory=memory, sent=values.itemsize)


def measure_ckks(dim: int, name: str, repeats: int, seed: int = 0) -> Times:
    """Return the same for encrypting and serialising, which needs no key per silo."""
    import tenseal  # noqa: PLC0415  (an optional extra)

    kind, moduli = CKKS[name]
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=DEGREE,
        coeff_mod_bit_sizes=list(moduli),
        encryption_type=getattr(tenseal.ENCRYPTION_TYPE, kind),
        n_threads=1,
    )
    context.global_scale = 2**SCALE_BITS
    values = np.random.default_rng(seed).normal(size=dim)
    slots = DEGREE // 2

    def encrypt() -> int:
        parts = (values[start : start + slots] for start in range(0, dim, slots))
        return sum(len(tenseal.ckks_vector(context, part).serialize()) for part in parts)

    seconds = [_seconds(encrypt) for _ in range(repeats)]
    return Times(seconds=seconds, memory=_NONE, sent=encrypt() / dim)


def folded(seed: bytes) -> bytes:
    """Return the four bytes to which Flower's generator shortens a seed before it uses it."""
    words = np.frombuffer(seed, dtype="<u4")
    return int(np.bitwise_xor.reduce(words)).to_bytes(4, "little")


def free_seed_bits(n_keys: int, progress: Progress) -> int:
    """Return how many bits of Flower's mask seeds differ at all among real pairs' shared keys.

    A bit that is the same in 2,000 seeds is fixed, unless that came about by chance: 2^-1999.
    """
    private, _ = generate_key_pairs()
    always, ever = 0xFFFFFFFF, 0
    for num in range(n_keys):
        _, public = generate_key_pairs()
        seed = int.from_bytes(folded(generate_shared_key(private, public)), "little")
        always, ever = always & seed, ever | seed
        progress("SecAgg+ seeds", num + 1, n_keys)
    return (ever & ~always).bit_count()


def measure(
    progress: Progress, *, dim: int, small: int, n_keys: int, repeats: int, seed_keys: int
) -> list[Row]:
    """Return one row per way to hide a vector; ratios are to our short ring at the small size."""
    plan: list[tuple[str, int, int, Callable[[int], Times]]] = [
        (f"{OURS} {bits} bits", size, n_keys, partial(measure_ours, size, n_keys, bits))
        for size, bits in ((small, 32), (small, 64), (dim, 32), (dim, 64))
    ]
    plan.append((CIPHER, dim, n_keys, partial(measure_cipher, dim, n_keys)))
    plan.append((FLOWER, small, n_keys, partial(measure_flower, small, n_keys)))
    if find_spec("tenseal") is not None:
        plan += [(name, small, 0, partial(measure_ckks, small, name)) for name in CKKS]
    else:
        missing = "without TenSEAL: its rows need pip install 'fondaco[bench]'"
        err_console.print(escape(missing))
    rows: list[Row] = []
    for num, (name, size, n_used, way) in enumerate(plan):
        progress("masking", num, len(plan))
        rows.append(_row(name, size, n_used, way(repeats), rows))
    progress("masking", len(plan), len(plan))
    bits = free_seed_bits(seed_keys, progress)
    return [{**row, "seed_bits": bits if row["way"] == FLOWER else _NONE} for row in rows]


def _row(way: str, dim: int, n_keys: int, times: Times, before: list[Row]) -> Row:
    least = min(times.seconds)
    short = way == f"{OURS} 32 bits"
    target = TARGET_S * dim * n_keys if short else _NONE
    return {
        "way": way,
        "numbers": dim,
        "keys": n_keys,
        "seconds": statistics.median(times.seconds),
        "least": least,
        "target": target,
        "reached": ("yes" if least <= target else "no") if short else "",
        "rate": times.sent * dim * n_keys / least / 1e9 if n_keys else _NONE,
        "memory": times.memory,
        "sent": times.sent,
        "per_million": 1e6 * least / dim,
        "ratio": 1e6 * least / dim / float(before[0]["per_million"]) if before else 1.0,
    }


def _seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def _peak_bytes(action: Callable[[], object]) -> int:
    """Return the most that `action` has allocated at a time [bytes]."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def main(
    *,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    numbers: Annotated[int, typer.Option(help="Length of the large vector.")] = 20_000_000,
    small: Annotated[int, typer.Option(help="Length of the one that all ways hide.")] = 1_000_000,
    silos: Annotated[int, typer.Option(help="Keys: a pair's with each other silo, its own.")] = 30,
    repeats: Annotated[int, typer.Option(help="Repetitions.")] = 5,
    seeds: Annotated[int, typer.Option(help="SecAgg+ seeds looked at.")] = 2000,
) -> None:
    """Time masks in memory, ours and others'."""
    with Bars() as progress:
        rows = measure(
            progress, dim=numbers, small=small, n_keys=silos, repeats=repeats, seed_keys=seeds
        )
    record("masked_sum", rows, out, seed=0, units=UNITS)


if __name__ == "__main__":
    typer.run(main)
