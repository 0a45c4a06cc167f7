"""Noise of a whole masked round: never less than the plan promises, whoever is missing."""

import numpy as np
import pytest
from masked_world import DEAD

from fondaco.client import agent as agent_module
from fondaco.shared.privacy.clipping import ClippedSum

DIM = 40_000
TOLERANCE = 4 * np.sqrt(2 / DIM)  # four stddev of a variance's estimate, relative


@pytest.fixture
def noise_of(make_world, monkeypatch):
    """Return a function: silos, how many must remain, how many fail -> (world, result)."""

    def zeros(task, kind, parameters, sample):
        dim = next(event.dim for event in task.plan.releases if event.kind == kind)
        return ClippedSum(values=np.zeros(dim, dtype=np.int64), sens_grid=task.plan.grid)

    monkeypatch.setattr(agent_module, "clipped_sum", zeros)

    def run(n_silos, n_min, failing, step="release"):
        world = make_world(n_silos, n_min, dim=DIM)
        world.fails(step, DEAD, *world.silos[1 : 1 + failing], later=True)
        return world, world.collect()

    return run


@pytest.mark.parametrize("step", ["hello", "release"])
@pytest.mark.parametrize(
    ("n_silos", "n_min", "failing"), [(3, 3, 0), (5, 4, 0), (5, 4, 1), (10, 8, 0), (10, 8, 2)]
)
def test_sum_holds_at_least_the_planned_noise(noise_of, n_silos, n_min, failing, step):
    world, result = noise_of(n_silos, n_min, failing, step)
    event, present = world.plan.releases[0], n_silos - failing
    assert len(result.present) == present
    variance = np.mean(result.total.astype(float) ** 2) / event.stddev_grid**2
    honest = n_min - 1
    expected = present if n_silos <= 5 else present / honest
    assert variance == pytest.approx(expected, rel=TOLERANCE)
    assert variance >= 1 - TOLERANCE


@pytest.mark.parametrize(("n_silos", "n_min"), [(5, 4), (10, 8)])
def test_fewest_survivors_without_a_colluders_noise_hold_the_planned_noise(
    noise_of, n_silos, n_min
):
    """The server and one silo know that one's share; what is left is what epsilon rests on."""
    world, result = noise_of(n_silos, n_min, n_silos - n_min)
    for colluder in result.present:
        rest = result.total - world.numbers[colluder, "popularity", 1, 1]
        variance = np.mean(rest.astype(float) ** 2) / world.plan.releases[0].stddev_grid ** 2
        assert variance >= 1 - TOLERANCE


def test_silos_draw_their_shares_apart(noise_of):
    world, _ = noise_of(5, 4, 0)
    shares = [world.numbers[silo, "popularity", 1, 1] for silo in world.silos]
    correlations = np.corrcoef(np.array(shares, dtype=float))[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(DIM)
