"""Oracle: every customer's whole gradient, made dense by einsum, in extended precision."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fondaco.shared.errors import ConfigError, PrivacyError
from fondaco.shared.privacy.events import EVERYBODY
from fondaco.shared.privacy.gradients import MAX_USERS, Factors, GradientSum
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.privacy.plan import MAX_GRID

GRID = 2**20
KINDS = ["normal", "zero", "giant", "tiny", "nan", "inf", "cancel", "nearly cancel", "twice"]


@dataclass
class Batch:
    """A batch of customers, all arrays of one dtype, drawn from one seed."""

    layers: list
    n_users: int

    @property
    def dim(self):
        return sum(layer.dim for layer in self.layers)

    def dense(self):
        """(n_users, dim) the gradients themselves."""
        parts = []
        for layer in self.layers:
            deltas, inputs = (x.astype(np.longdouble) for x in (layer.deltas, layer.inputs))
            parts.append(np.einsum("uto,uti->uoi", deltas, inputs).reshape(self.n_users, -1))
        return np.concatenate(parts, axis=1)

    def without(self, gone):
        """The same batch with one row taken out."""
        rows = np.delete(np.arange(self.n_users), gone)
        return Batch(
            [layer.rows(np.isin(np.arange(self.n_users), rows)) for layer in self.layers],
            self.n_users - 1,
        )


def _distort(kind, deltas, inputs):
    """Turn one customer's ordinary positions into what `kind` says, in place."""
    last = len(deltas) - 1
    if kind in ("zero", "nan", "inf"):
        deltas[:] = {"zero": 0.0, "nan": np.nan, "inf": np.inf}[kind]
    elif kind in ("giant", "tiny"):
        deltas *= {"giant": 1e17, "tiny": 1e-17}[kind]
    elif kind == "cancel" and last:
        deltas[last], inputs[last] = -1e12 * deltas[0], 1e5 * inputs[0]
        deltas[0] *= 1e17
    elif kind == "nearly cancel" and last:
        # 3 w * 7 = 21 w * 1, but not once each factor was scaled and rounded.
        deltas[0], inputs[0] = 3e16 * deltas[last], 7 * inputs[last]
        deltas[last] *= -21e16
    elif kind == "twice":
        deltas[last], inputs[last] = deltas[0], inputs[0]


@st.composite
def batches(draw, max_users=5):
    n_users = draw(st.integers(1, max_users))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=n_users, max_size=n_users))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        positions, n_out, n_in = (draw(st.integers(1, 4)) for _ in range(3))
        deltas = rng.normal(size=(n_users, positions, n_out))
        inputs = rng.normal(size=(n_users, positions, n_in))
        for user, kind in enumerate(kinds):
            _distort(kind, deltas[user], inputs[user])
        layers.append(Factors(deltas=deltas.astype(dtype), inputs=inputs.astype(dtype)))
    return Batch(layers, n_users)


def _everybody(n_users):
    return NoiseStream.seeded(0).sample(n_users, EVERYBODY)


def _total(batch, clip_norm=1.0, grid=GRID):
    total = GradientSum(batch.dim, clip_norm, grid, _everybody(batch.n_users))
    if batch.n_users:
        total.add(np.arange(batch.n_users), batch.layers)
    return total.total()


def _one(deltas, inputs):
    """A batch of one customer of one parameter: positions x numbers."""
    return Batch([Factors(deltas=np.array([deltas]), inputs=np.array([inputs]))], 1)


def _squared_norm(values):
    return sum(value * value for value in values.tolist())


@given(batches(), st.sampled_from([1e-2, 0.37, 1.0, 100.0]), st.sampled_from([2**12, GRID, 2**24]))
@settings(max_examples=300, deadline=None)
def test_removing_any_one_customer_moves_the_sum_by_at_most_its_sensitivity(batch, clip_norm, grid):
    whole = _total(batch, clip_norm, grid)
    for gone in range(batch.n_users):
        rest = _total(batch.without(gone), clip_norm, grid)
        assert _squared_norm(whole.values - rest.values) <= whole.sens_grid**2 == grid**2


@given(batches(max_users=1), st.sampled_from([1e-2, 0.37, 1.0, 3.3]))
@settings(max_examples=300, deadline=None)
def test_one_customer_alone_adds_at_most_the_sensitivity(batch, clip_norm):
    assert _squared_norm(_total(batch, clip_norm).values) <= GRID**2


@given(st.integers(0, 2**32), st.integers(1, 4), st.floats(0.05, 20))
@settings(max_examples=100, deadline=None)
def test_sum_is_that_of_plainly_clipped_gradients(seed, n_positions, clip_norm):
    rng = np.random.default_rng(seed)
    shapes = [(6, n_positions, 3), (6, n_positions, 4)]
    batch = Batch(
        [Factors(deltas=rng.normal(size=s), inputs=rng.normal(size=s)) for s in shapes], 6
    )
    dense = batch.dense().astype(np.float64)
    clipped = dense * np.minimum(1.0, clip_norm / np.linalg.norm(dense, axis=1, keepdims=True))
    found = _total(batch, clip_norm).values / GRID * clip_norm
    error = np.linalg.norm(found - clipped.sum(axis=0))
    assert error <= 1.2e-3 * np.linalg.norm(clipped, axis=1).sum()


@pytest.mark.parametrize(("n_positions", "used"), [(1, 0.9985), (3, 0.9985), (40, 0.9965)])
def test_clipping_uses_nearly_all_of_the_bound(n_positions, used):
    rng = np.random.default_rng(n_positions)
    shape = (1, n_positions, 16)
    batch = Batch([Factors(deltas=rng.normal(size=shape), inputs=rng.normal(size=shape))], 1)
    assert _squared_norm(_total(batch, 1e-2).values) > (used * GRID) ** 2


@given(batches())
@settings(max_examples=200, deadline=None)
def test_squared_norms_are_never_too_small(batch):
    with np.errstate(all="ignore"):
        layers = [layer.in_float64() for layer in batch.layers]
        squares = sum(layer.squared_norms() for layer in layers)
        dense = Batch(layers, batch.n_users).dense()
        exact = np.einsum("ud,ud->u", dense, dense).astype(np.float64)
    finite = np.isfinite(squares)
    assert np.all(squares[finite] >= exact[finite] * (1 - 1e-9))
    assert np.all(np.isfinite(exact[finite]))


@pytest.mark.parametrize("n_positions", [2, 7, 60])
def test_squared_norms_by_inner_products_equal_those_of_the_matrix(n_positions):
    rng = np.random.default_rng(n_positions)
    layer = Factors(
        deltas=rng.normal(size=(3, n_positions, 50)), inputs=rng.normal(size=(3, n_positions, 50))
    )
    dense = np.einsum("uto,uti->uoi", layer.deltas, layer.inputs)
    expected = np.einsum("uoi,uoi->u", dense, dense) + 1e-4 * _without_signs(layer) ** 2
    assert layer.squared_norms() == pytest.approx(expected, rel=1e-9)


def _without_signs(layer):
    """(n_users,) sum_t |d_t| |a_t|."""
    return np.sum(np.linalg.norm(layer.deltas, axis=2) * np.linalg.norm(layer.inputs, axis=2), 1)


@given(batches())
@settings(max_examples=100, deadline=None)
def test_no_customer_is_added_up_from_more_than_a_hundred_clip_norms(batch):
    """What rounding can leave of positions that cancel follows from this."""
    for layer in (layer.in_float64() for layer in batch.layers):
        with np.errstate(all="ignore"):
            norms, lengths = np.sqrt(layer.squared_norms()), _without_signs(layer)
        sound = np.isfinite(norms) & np.isfinite(lengths)
        assert np.all(norms[sound] >= 0.999 * 0.01 * lengths[sound])


def test_factors_that_measure_themselves_are_refused():
    class Shrunk(Factors):
        def squared_norms(self):
            return 1e-9 * super().squared_norms()

        def in_float64(self):
            return self

    total = GradientSum(1, 1.0, GRID, _everybody(1))
    with pytest.raises(PrivacyError, match="measured here"):
        total.add(np.arange(1), [Shrunk(deltas=np.ones((1, 1, 1)), inputs=np.ones((1, 1, 1)))])
    assert not total.total().values.any()


@pytest.mark.parametrize("width", [1, 300])
@pytest.mark.parametrize("clip_norm", [1e-9, 0.01])
@pytest.mark.parametrize("n_positions", [1, 400])
def test_numbers_whose_squares_vanish_leave_no_more_than_the_bound(width, clip_norm, n_positions):
    """Squares of 1.5e-162 are nought in float64, but times 1e154 it is not."""
    deltas = np.full((n_positions, width), 1.5e-162)
    inputs = np.full((n_positions, width), 1.3e154 / math.sqrt(width))
    assert _squared_norm(_total(_one(deltas, inputs), clip_norm).values) <= GRID**2


@pytest.mark.parametrize("tiny", [1e-30, 1e-45, 1e-50, 1e-320])
def test_smallest_numbers_times_the_largest_leave_no_more_than_the_bound(tiny):
    total = _total(_one([[tiny]] * 3, [[3e38]] * 3), 1e-9)
    assert _squared_norm(total.values) <= GRID**2


def test_numbers_are_rounded_to_float32_before_they_are_measured():
    fine, coarse = (_total(_one([[x, 0.3]], [[x]]), 1.0) for x in (1 + 2**-30, 1.0))
    assert np.array_equal(fine.values, coarse.values)
    assert not _total(_one([[1e39]], [[1e-9]])).values.any()


def test_long_batches_are_added_up_in_blocks_without_loss():
    """70,000 rows are more than one block; every customer adds exactly a power of two."""
    n_users = 70_000
    ones = np.ones((n_users, 1, 1))
    total = GradientSum(1, 4.0, GRID, _everybody(n_users))
    total.add(np.arange(n_users), [Factors(deltas=ones, inputs=ones)])
    each = (GRID * 0.999 - 1.0) / 4.0
    assert total.total().values.tolist() == [round(n_users * each)]


def test_more_customers_than_rounding_leaves_room_for_are_refused():
    GradientSum(1, 1.0, GRID, _everybody(MAX_USERS))
    with pytest.raises(ConfigError, match="customers"):
        GradientSum(1, 1.0, GRID, _everybody(MAX_USERS + 1))


@pytest.mark.parametrize("scale", [1e12, 1e15, 1e17, 1e100])
@pytest.mark.parametrize("clip_norm", [0.1, 0.37, 1.0])
@pytest.mark.parametrize("width", [1, 30])
def test_positions_that_cancel_leave_no_more_than_the_bound(scale, clip_norm, width):
    """3 w 7 - 21 w 1 is nought, yet not once w was scaled and rounded."""
    deltas = np.outer([3.0, -21.0], np.ones(width)) * scale
    inputs = np.outer([7.0, 1.0], np.ones(width))
    total = _total(_one(deltas, inputs), clip_norm)
    assert _squared_norm(total.values) <= GRID**2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("where", ["deltas", "inputs"])
def test_gradient_that_is_not_finite_counts_as_zeros(bad, where):
    rng = np.random.default_rng(0)
    arrays = {"deltas": rng.normal(size=(3, 2, 4)), "inputs": rng.normal(size=(3, 2, 5))}
    clean = Batch([Factors(**arrays)], 3).without(1)
    arrays[where][1, 0, 0] = bad
    found = _total(Batch([Factors(**arrays)], 3))
    assert np.array_equal(found.values, _total(clean).values)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_customer_alone_whose_gradient_is_not_finite_adds_zeros(bad):
    assert not _total(_one([[bad]], [[1.0]])).values.any()


def test_batch_of_nobody_adds_zeros():
    total = GradientSum(12, 1.0, GRID, _everybody(0))
    nobody = Factors(deltas=np.zeros((0, 2, 3)), inputs=np.zeros((0, 2, 4)))
    total.add(np.arange(0), [nobody])
    assert not total.total().values.any()


def test_customers_without_positions_add_zeros():
    empty = Factors(deltas=np.zeros((2, 0, 3)), inputs=np.zeros((2, 0, 4)))
    assert not _total(Batch([empty], 2)).values.any()


@given(batches(), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_sum_is_the_same_up_to_rounding_however_it_is_batched(batch, cut):
    cut = min(cut, batch.n_users)
    total = GradientSum(batch.dim, 1.0, GRID, _everybody(batch.n_users))
    for users in (np.arange(cut), np.arange(cut, batch.n_users)):
        mask = np.isin(np.arange(batch.n_users), users)
        total.add(users, [layer.rows(mask) for layer in batch.layers])
    assert np.max(np.abs(total.total().values - _total(batch).values)) <= 1


def test_total_of_nobody_is_zeros():
    total = GradientSum(7, 1.0, GRID, _everybody(100)).total()
    assert total.values.tolist() == [0] * 7
    assert total.values.dtype == np.int64


def test_total_carries_sensitivity_and_its_very_sample():
    sample = NoiseStream.seeded(1).sample(50, 123_456)
    total = GradientSum(7, 1.0, GRID, sample).total()
    assert total.sens_grid == GRID
    assert total.sample is sample


def _ones(n_users, n_out=2, n_in=3):
    return Factors(deltas=np.ones((n_users, 1, n_out)), inputs=np.ones((n_users, 1, n_in)))


@pytest.fixture
def total():
    """A sum of six numbers over customers 0 to 3."""
    return GradientSum(6, 1.0, GRID, _everybody(4))


@pytest.mark.parametrize("again", [[1], [0, 1], [3, 2, 1]])
def test_customer_is_refused_a_second_time(total, again):
    total.add(np.array([1]), [_ones(1)])
    before = total.total().values
    with pytest.raises(PrivacyError, match="added before"):
        total.add(np.array(again), [_ones(len(again))])
    assert np.array_equal(total.total().values, before)


def test_customer_is_refused_twice_in_one_batch(total):
    with pytest.raises(PrivacyError):
        total.add(np.array([2, 2]), [_ones(2)])


@pytest.mark.parametrize("stranger", [4, -1, 10**9])
def test_customer_who_does_not_exist_is_refused(total, stranger):
    with pytest.raises(PrivacyError):
        total.add(np.array([0, stranger]), [_ones(2)])


def test_customer_who_was_not_sampled_is_refused():
    sample = NoiseStream.seeded(1).sample(100, EVERYBODY // 2)
    absent = np.setdiff1d(np.arange(100), sample.user_nums)[:1]
    with pytest.raises(PrivacyError, match="not sampled"):
        GradientSum(6, 1.0, GRID, sample).add(absent, [_ones(1)])


@pytest.mark.parametrize("n_rows", [1, 3])
def test_batch_of_another_length_than_its_customers_is_refused(total, n_rows):
    with pytest.raises(PrivacyError, match="number of customers"):
        total.add(np.array([0, 1]), [_ones(n_rows)])


@pytest.mark.parametrize(("n_deltas", "n_inputs"), [(1, 2), (2, 1), (0, 1), (3, 2)])
def test_deltas_and_inputs_of_different_positions_are_refused(n_deltas, n_inputs):
    """A block's worth of customers would be paired with the inputs of others, unmeasured."""
    n_users = 1 << 16
    total = GradientSum(1, 1.0, GRID, _everybody(n_users))
    crooked = Factors(
        deltas=np.ones((n_users, n_deltas, 1)), inputs=np.full((n_users, n_inputs, 1), 1e6)
    )
    with pytest.raises(PrivacyError, match="positions"):
        total.add(np.arange(n_users), [crooked])
    assert not total.total().values.any()


def test_parameters_of_different_lengths_are_refused():
    total = GradientSum(12, 1.0, GRID, _everybody(4))
    with pytest.raises(PrivacyError, match="number of customers"):
        total.add(np.array([0, 1]), [_ones(2), _ones(3)])


@pytest.mark.parametrize("layers", [[], [_ones(1, 1, 5)], [_ones(1), _ones(1)], [_ones(1, 7, 1)]])
def test_gradients_of_another_length_than_planned_are_refused(total, layers):
    with pytest.raises(PrivacyError, match="as long as"):
        total.add(np.array([0]), layers)


@pytest.mark.parametrize("dim", [(GRID // 2) ** 2, GRID**2, 10**15])
def test_sum_too_long_to_leave_room_for_rounding_is_refused(dim):
    with pytest.raises(ConfigError, match="out of range"):
        GradientSum(dim, 1.0, GRID, _everybody(1))


@pytest.mark.parametrize("grid", [0, -1, 1, 2, MAX_GRID + 1, 2**60])
def test_grid_out_of_range_is_refused(grid):
    with pytest.raises(ConfigError):
        GradientSum(1, 1.0, grid, _everybody(1))


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, 5e-324, 1e-304, math.nan, math.inf])
def test_clip_norm_out_of_range_is_refused(clip_norm):
    with pytest.raises(ConfigError):
        GradientSum(1, clip_norm, GRID, _everybody(1))


def test_longest_sums_still_keep_the_bound():
    """All room for rounding is used: half a grid unit in each of dim numbers, twice."""
    grid, dim = 2**10, 2**16
    batch = Batch([Factors(deltas=np.ones((1, 1, 2**8)), inputs=np.ones((1, 1, 2**8)))], 1)
    assert batch.dim == dim
    for scale in (0.3, 0.5, 0.99, 1.0, 1e6):
        batch.layers[0].deltas[:] = scale / 2**8
        assert _squared_norm(_total(batch, 1.0, grid).values) <= grid**2


def test_gradients_passed_in_stay_as_they_were():
    batch = _one([[2.0, -3.0]], [[5.0]])
    _total(batch, 0.1)
    assert batch.layers[0].deltas.tolist() == [[[2.0, -3.0]]]
    assert batch.layers[0].inputs.tolist() == [[[5.0]]]
