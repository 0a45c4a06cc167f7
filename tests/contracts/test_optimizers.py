"""Every server optimizer, and torch's own as the oracle of those that torch has."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fondaco.server.aggregation import OPTIMIZERS
from fondaco.server.aggregation.optimizers import DECAY, MOMENTUM

DIM = 5
NUMBERS = st.floats(-100, 100, allow_nan=False).map(lambda x: round(x, 6))
DIRECTIONS = st.lists(hnp.arrays(np.float64, DIM, elements=NUMBERS), min_size=1, max_size=8)
START = np.linspace(-1, 2, DIM)

each = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def _walk(optimizer, directions, rate=0.1, start=START):
    state, parameters = optimizer(rate), start
    for direction in directions:
        parameters = state.step(parameters, direction)
    return parameters


def _walk_with_torch(make, directions):
    """Torch moves against a gradient, ours along a direction."""
    parameter = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    oracle = make([parameter])
    for direction in directions:
        parameter.grad = -torch.tensor(direction)
        oracle.step()
    return parameter.detach().numpy()


@each
def test_zeros_move_nothing(optimizer):
    assert np.array_equal(_walk(optimizer, [np.zeros(DIM)] * 3), START)


@each
@given(directions=DIRECTIONS)
def test_equal_calls_give_equal_parameters(optimizer, directions):
    assert np.array_equal(_walk(optimizer, directions), _walk(optimizer, directions))


@each
@given(directions=DIRECTIONS)
def test_step_leaves_its_arguments_as_they_were(optimizer, directions):
    state, parameters = optimizer(0.1), START.copy()
    for direction in directions:
        before = parameters.copy(), direction.copy()
        moved = state.step(parameters, direction)
        assert np.array_equal(parameters, before[0])
        assert np.array_equal(direction, before[1])
        parameters = moved


@each
@given(direction=hnp.arrays(np.float64, DIM, elements=NUMBERS))
def test_first_step_goes_along_the_direction(optimizer, direction):
    moved = _walk(optimizer, [direction]) - START
    assert np.all(moved * direction >= 0)
    assert np.all((moved != 0) == (np.abs(direction) > 0))


@each
@given(directions=DIRECTIONS)
def test_parameters_stay_finite(optimizer, directions):
    extreme = [d * scale for d, scale in zip(directions, (1e-30, 1e30) * 4, strict=False)]
    assert np.isfinite(_walk(optimizer, extreme)).all()


@each
@given(directions=DIRECTIONS)
def test_coordinates_do_not_mix(optimizer, directions):
    """What one coordinate is told never moves another."""
    others = [np.where(np.arange(DIM) == 2, -3 * d, d) for d in directions]
    one, other = _walk(optimizer, directions), _walk(optimizer, others)
    assert np.array_equal(np.delete(one, 2), np.delete(other, 2))


@each
def test_optimizer_says_where_it_comes_from(optimizer):
    assert inspect.getdoc(optimizer)


@given(directions=DIRECTIONS)
def test_fedavg_adds_up_what_it_is_told(directions):
    expected = START + 0.5 * np.sum(directions, axis=0)
    np.testing.assert_allclose(_walk(OPTIMIZERS["fedavg"], directions, 0.5), expected, atol=1e-9)


@settings(deadline=None)
@given(directions=DIRECTIONS)
def test_fedavgm_is_torchs_sgd_with_momentum(directions):
    found = _walk(OPTIMIZERS["fedavgm"], directions)
    oracle = _walk_with_torch(lambda p: torch.optim.SGD(p, lr=0.1, momentum=MOMENTUM), directions)
    np.testing.assert_allclose(found, oracle, atol=1e-9)


@settings(deadline=None)
@given(directions=DIRECTIONS)
def test_fedadam_is_torchs_adam(directions):
    found = _walk(OPTIMIZERS["fedadam"], directions)
    betas = MOMENTUM, DECAY
    oracle = _walk_with_torch(
        lambda p: torch.optim.Adam(p, lr=0.1, betas=betas, eps=1e-12), directions
    )
    assert betas == (0.9, 0.99)
    np.testing.assert_allclose(found, oracle, atol=1e-9)


@given(direction=hnp.arrays(np.float64, DIM, elements=NUMBERS.filter(lambda x: abs(x) > 1e-3)))
def test_fedadam_moves_by_its_rate_whatever_the_scale(direction):
    for scale in (1e-4, 1.0, 1e4):
        moved = _walk(OPTIMIZERS["fedadam"], [scale * direction], 0.02) - START
        np.testing.assert_allclose(moved, 0.02 * np.sign(direction), rtol=1e-4)


def test_fedyogi_forgets_a_burst_at_a_steady_pace():
    """Adam's second moment decays by its own size, Yogi's by that of what comes in."""
    burst = [np.full(DIM, 100.0)] + [np.ones(DIM)] * 200
    adam, yogi = (OPTIMIZERS[name](0.1) for name in ("fedadam", "fedyogi"))
    for direction in burst:
        adam.step(START, direction)
        yogi.step(START, direction)
    assert np.all(yogi._second > 5 * adam._second)
    # 0.01 * 100^2 in the first step, from then on 0.01 * 1^2 less each time.
    np.testing.assert_allclose(yogi._second, 100.0 - 200 * 0.01)
