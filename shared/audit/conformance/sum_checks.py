"""What can one customer change? Measured in exact integers, on data made to break the bound."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from ...privacy.clipping import ClippedSum, gram_dim
from ...privacy.events import EVERYBODY
from ...privacy.noise import Sample
from ...privacy.plan import GRID
from .probe import ASKED, STEPS_DIM, Array, Ints, Outcome, Probe

_N_ITEMS = 40
_GIANT = 100_000
_CLIP_NORMS = (0.1, 1.0, 8.0)
_KINDS = (
    "normal", "zeros", "giant", "tiny", "nan", "inf", "1e38", "denormal", "cancel", "twice",
    "opposite",
)  # fmt: skip
_SHAPES: Sequence[Sequence[tuple[int, int, int]]] = (
    ((1, 3, 5),),
    ((4, 3, 2), (4, 3, 1)),
    ((9, 2, 3), (1, 7, 7), (3, 1, 1)),
)
"""(positions, outputs, inputs) of the layers of three models; the second has biases."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """(n_users, n_positions, n) output gradients and inputs of one layer."""

    deltas: Array
    inputs: Array


def check_popularity(probe: Probe) -> Outcome:
    """Remove one customer's rows from hostile purchase tables; popularity."""
    return _check_tables(probe, probe.core.popularity_sum)


def check_gram(probe: Probe) -> Outcome:
    """Remove one customer's rows from hostile purchase tables; Gram."""
    return _check_tables(probe, probe.core.gram_sum)


def check_gradients(probe: Probe) -> Outcome:
    """Remove one customer from hostile gradients of one to three layers."""
    worst, n_cases, bound = 0, 0, GRID**2
    for clip_norm in _CLIP_NORMS:
        for n_users in (1, 2, 3, 6) * (1 if probe.quick else 40):
            for shapes in _SHAPES:
                layers = _hostile(probe.rng, shapes, n_users)
                worst = max(worst, _worst_move(probe, layers, clip_norm))
                n_cases += n_users
    # Alone, around the clip norm and on a coarse grid: where units and rounding bite.
    for shapes, clip_norm, scale in product(_SHAPES, _CLIP_NORMS, (0.9, 1.0, 1.001, 2.0, 50.0)):
        layers = _of_norm(probe.rng, shapes, scale * clip_norm)
        worst = max(worst, _worst_move(probe, layers, clip_norm, grid=1 << 12) << 16)
        n_cases += 1
    worst = max(worst, _worst_move(probe, _opposing(), 1.0))
    return _bounded(worst, bound, n_cases + 2)


def check_any_input(probe: Probe) -> Outcome:
    """Shape, dtype and success of every sum must not depend on the data."""
    seen: dict[tuple[str, int], set[str]] = {
        ("popularity", _N_ITEMS): _told_of_tables(probe, probe.core.popularity_sum),
        ("gram", gram_dim(_N_ITEMS)): _told_of_tables(probe, probe.core.gram_sum),
    }
    for shapes in _SHAPES:
        bare = [(0, n_out, n_in) for _, n_out, n_in in shapes]
        data = [_layers(probe.rng, shapes, [kind, "normal", kind]) for kind in _KINDS]
        data += [_layers(probe.rng, shapes, []), _layers(probe.rng, bare, ["normal"])]
        dim = sum(n_out * n_in for _, n_out, n_in in shapes)
        told = {_told(partial(_gradient_sum, probe, layers, 1.0)) for layers in data}
        seen["gradients", dim] = told
    faults = [
        f"{name} of {dim} numbers: {sorted(told)}"
        for (name, dim), told in seen.items()
        if told != {f"int64({dim},)"}
    ]
    return Outcome(statistic=float(len(faults)), faults=tuple(faults), detail="all kinds of data")


def check_alone(probe: Probe) -> Outcome:
    """What a customer adds must not depend on who else is there (batch statistics, means)."""
    worst = 0.0
    for shapes in _SHAPES:
        layers = _layers(probe.rng, shapes, ["normal"] * 5)
        alone = [_gradient_sum(probe, _only(layers, user), 1.0).values for user in range(5)]
        together = _gradient_sum(probe, layers, 1.0).values
        worst = max(worst, float(np.max(np.abs(np.sum(alone, axis=0) - together))))
    tables = [table for table in _tables(probe) if len(table[0])]
    for summed in (probe.core.popularity_sum, probe.core.gram_sum):
        for users, items in tables:
            alone = [
                _of_table(probe, summed, (users[users == u], items[users == u]), 6).values
                for u in range(6)
            ]
            together = _of_table(probe, summed, (users, items), 6).values
            worst = max(worst, float(np.max(np.abs(np.sum(alone, axis=0) - together))))
    faults = (f"sums of customers differ from their sum by {worst:.0f}",) if worst > 5 else ()  # noqa: PLR2004
    return Outcome(statistic=worst, faults=faults, detail=f"largest difference {worst:.1f} units")


def check_moves(probe: Probe) -> Outcome:
    """Local steps tell nothing but noisy sums: no side door for the gradient, no failure."""
    plan, faults = probe.sampled_plan, []
    start = np.zeros(STEPS_DIM)

    def writing(parameters: Array, sample: Sample) -> ClippedSum:
        total = probe.core.gradient_sum(len(parameters), 1.0, GRID, sample).total()
        parameters += 1e6
        start[:] = 1e9
        return total

    def run(round_num: int, move: Callable[[Array, Array], Array]) -> Ints:
        debit = probe.ledger(plan, "moves").debit("steps", round_num, request=ASKED)
        stream = probe.stream("moves", str(round_num))
        return probe.core.release_moves(start, writing, move, debit, stream, n_users=9).values

    if run(1, lambda parameters, noisy: parameters).any():
        faults.append("a gradient wrote what it knew into the update")
    ends = np.resize([np.nan, np.inf, -np.inf, 1e300], STEPS_DIM)
    told = _told_values(lambda: run(2, lambda parameters, noisy: ends))
    if told != f"int64({STEPS_DIM},)":
        faults.append(f"parameters that ran away gave {told}")
    return Outcome(statistic=float(len(faults)), faults=tuple(faults), detail="two local runs")


def _told_of_tables(probe: Probe, summed: Callable[..., ClippedSum]) -> set[str]:
    return {_told(partial(_of_table, probe, summed, table, 6)) for table in _tables(probe)}


def _check_tables(probe: Probe, summed: Callable[..., ClippedSum]) -> Outcome:
    worst, n_cases = 0, 0
    for users, items in _tables(probe):
        whole = _of_table(probe, summed, (users, items), 6).values
        for gone in range(6):
            rest = _of_table(probe, summed, (users[users != gone], items[users != gone]), 6).values
            worst = max(worst, _squared_norm(whole, rest))
            n_cases += 1
    return _bounded(worst, GRID**2, n_cases)


def _bounded(worst: int, bound: int, n_cases: int) -> Outcome:
    used = (worst / bound) ** 0.5
    faults = (f"one customer moved a sum by {used:.4f} of its sensitivity",) * (worst > bound)
    return Outcome(
        statistic=used,
        faults=faults,
        detail=f"at most {used:.6f} of the sensitivity in {n_cases} removals",
    )


def _tables(probe: Probe) -> list[tuple[Ints, Ints]]:
    """(customers, items) of up to 6 customers: repeats, giants, strangers' items, nobody."""
    rng = probe.rng
    every = np.arange(_N_ITEMS)
    tables = [
        (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)),
        (np.full(_GIANT, 2), rng.integers(_N_ITEMS, size=_GIANT)),
        (np.repeat(np.arange(6), _N_ITEMS), np.tile(every, 6)),
        (np.zeros(50, dtype=np.int64), np.full(50, 7)),
        (np.array([0, 0, 1, 1, 5]), np.array([-1, _N_ITEMS, 3, 3, 10**12])),
        (np.arange(6), np.full(6, 3)),
    ]
    for size in (10, 60, 400) if probe.quick else (5, 10, 30, 60, 100, 400, 2000):
        skewed = np.minimum(rng.zipf(1.3, size=size), 6) - 1
        tables.append((skewed, rng.integers(_N_ITEMS, size=size)))
    return [(users.astype(np.int64), items.astype(np.int64)) for users, items in tables]


def _of_table(
    probe: Probe, summed: Callable[..., ClippedSum], table: tuple[Ints, Ints], n_users: int
) -> ClippedSum:
    histories = probe.core.bound_contributions(*table, n_users, _N_ITEMS)
    return summed(histories, GRID)


def _hostile(
    rng: np.random.Generator, shapes: Sequence[tuple[int, int, int]], n_users: int
) -> list[Layer]:
    kinds = rng.choice(len(_KINDS), size=n_users)
    return _layers(rng, shapes, [_KINDS[kind] for kind in kinds])


def _layers(
    rng: np.random.Generator, shapes: Sequence[tuple[int, int, int]], kinds: Sequence[str]
) -> list[Layer]:
    """One customer of each kind."""
    layers = []
    for positions, n_out, n_in in shapes:
        deltas = rng.normal(size=(len(kinds), positions, n_out))
        inputs = rng.normal(size=(len(kinds), positions, n_in))
        for user, kind in enumerate(kinds):
            _distort(kind, deltas[user], inputs[user])
        layers.append(Layer(deltas=deltas, inputs=inputs))
    return layers


def _distort(kind: str, deltas: Array, inputs: Array) -> None:
    """Turn one customer's ordinary positions into what `kind` says, in place."""
    filled = {"zeros": 0.0, "nan": np.nan, "inf": np.inf, "1e38": 1e38, "denormal": 1e-320}
    scaled = {"giant": 1e17, "tiny": 1e-17}
    if kind in filled:
        deltas[:] = filled[kind]
    elif kind in scaled:
        deltas *= scaled[kind]
    elif kind == "opposite":
        deltas[:], inputs[:] = -60.0, 1.0
    elif kind == "twice":
        deltas[:], inputs[:] = 3.0 * deltas[0], inputs[0]
    elif kind == "cancel":
        deltas[-1], inputs[-1] = -21e16 * deltas[0], inputs[0]
        if len(deltas) > 1:
            deltas[0], inputs[0] = deltas[-1] / -7.0, 7.0 * inputs[-1]


def _of_norm(
    rng: np.random.Generator, shapes: Sequence[tuple[int, int, int]], norm: float
) -> list[Layer]:
    """One customer with one position a layer, whose gradients have this norm in all."""
    layers = [
        Layer(deltas=rng.normal(size=(1, 1, out)), inputs=rng.normal(size=(1, 1, n_in)))
        for _, out, n_in in shapes
    ]
    squares = [np.sum(x.deltas**2) * np.sum(x.inputs**2) for x in layers]
    factor = norm / float(np.sqrt(np.sum(squares)))
    return [Layer(deltas=x.deltas * factor, inputs=x.inputs) for x in layers]


def _opposing() -> list[Layer]:
    """Two customers of which each hides the other: clipping only their sum would show it."""
    deltas = np.zeros((2, 1, 4))
    deltas[:, 0, 0] = 100.0, -101.0
    return [Layer(deltas=deltas, inputs=np.ones((2, 1, 1)))]


def _only(layers: Sequence[Layer], user: int) -> list[Layer]:
    return [Layer(deltas=x.deltas[[user]], inputs=x.inputs[[user]]) for x in layers]


def _worst_move(probe: Probe, layers: Sequence[Layer], clip_norm: float, grid: int = GRID) -> int:
    """Largest squared l2 norm by which removing one customer moves the sum [grid units^2]."""
    n_users = len(layers[0].deltas)
    whole = _gradient_sum(probe, layers, clip_norm, grid).values
    moves = [_squared_norm(whole, np.zeros_like(whole))] if n_users == 1 else []
    for gone in range(n_users if n_users > 1 else 0):
        rest = [
            Layer(deltas=np.delete(x.deltas, gone, axis=0), inputs=np.delete(x.inputs, gone, 0))
            for x in layers
        ]
        moves.append(_squared_norm(whole, _gradient_sum(probe, rest, clip_norm, grid).values))
    return max(moves)


def _gradient_sum(
    probe: Probe, layers: Sequence[Layer], clip_norm: float, grid: int = GRID
) -> ClippedSum:
    n_users = len(layers[0].deltas)
    dim = sum(x.deltas.shape[2] * x.inputs.shape[2] for x in layers)
    sample = probe.stream("everybody").sample(n_users, EVERYBODY)
    total = probe.core.gradient_sum(dim, clip_norm, grid, sample)
    factors = [probe.core.factors(deltas=x.deltas, inputs=x.inputs) for x in layers]
    total.add(sample.user_nums, factors)
    return total.total()


def _squared_norm(one: Ints, two: Ints) -> int:
    """Exact: Python integers neither round nor overflow."""
    pairs = zip(one.tolist(), two.tolist(), strict=True)
    return sum((a - b) ** 2 for a, b in pairs)


def _told(attempt: Callable[[], ClippedSum]) -> str:
    """What anybody sees of a sum without seeing its numbers."""
    return _told_values(lambda: attempt().values)


def _told_values(attempt: Callable[[], Ints]) -> str:
    try:
        values = attempt()
    except Exception as error:
        return type(error).__name__
    return f"{values.dtype}{values.shape}"
