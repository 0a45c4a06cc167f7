from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.errors import RefusalError
from fondaco.shared.privacy.clipping import ClippedSum
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.noise import NoiseStream
from fondaco.shared.privacy.release import release

OWNER = Identity.seeded(0, key_name("north"))

GRID = 2**20


@pytest.fixture
def debit(tmp_path, plan):
    with Ledger.open_or_create(tmp_path / "north.db", "north", OWNER, plan) as ledger:
        return ledger.debit("popularity", 1, request="sha256:asked")


def _sum(values=(0, 0, 0, 0, 0), sens_grid=GRID, dtype=np.int64):
    return ClippedSum(values=np.array(values, dtype=dtype), sens_grid=sens_grid)


def test_release_is_the_sum_plus_the_silos_noise(debit):
    update = release(_sum((1, 2, 3, 4, 5)), debit, NoiseStream.seeded(0, "x"))
    noise = NoiseStream.seeded(0, "x").gaussian(5, debit.event.silo_stddev_grid)
    assert np.array_equal(update.values - noise, [1, 2, 3, 4, 5])
    assert update.values.dtype == np.int64


def test_release_carries_public_labels_only(debit, plan):
    update = release(_sum(), debit, NoiseStream.from_system())
    assert (update.silo_id, update.plan_digest) == ("north", plan.digest)
    assert (update.kind, update.round_num, update.attempt) == ("popularity", 1, 1)
    assert update.debit_seq == debit.seq


def test_release_adds_noise_to_items_that_nobody_bought(debit):
    """chi-square of zeros over 16k coordinates; false alarms: 1e-6."""
    event = replace(debit.event, dim=16_384)
    total = _sum(np.zeros(16_384))
    update = release(total, replace(debit, event=event), NoiseStream.seeded(0, "zeros"))
    statistic = float(np.sum((update.values / event.silo_stddev_grid) ** 2))
    assert min(stats.chi2.cdf(statistic, 16_384), stats.chi2.sf(statistic, 16_384)) > 5e-7
    assert np.count_nonzero(update.values == 0) < 5


def test_release_of_fresh_noise_differs_every_time(debit):
    one, two = (release(_sum(), replace(debit), NoiseStream.from_system()) for _ in range(2))
    assert not np.array_equal(one.values, two.values)


def test_release_draws_noise_once_per_proof(debit):
    release(_sum(), debit, NoiseStream.from_system())
    with pytest.raises(RefusalError, match="send the same bytes"):
        release(_sum(), debit, NoiseStream.from_system())


@pytest.mark.parametrize("total", [_sum((0, 0, 0, 0)), _sum((0,) * 6)])
def test_release_refuses_a_length_that_was_not_paid_for(debit, total):
    with pytest.raises(RefusalError, match="length"):
        release(total, debit, NoiseStream.from_system())


@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (5, 5), ()])
def test_release_refuses_a_shape_over_which_one_noise_would_be_spread(debit, shape):
    with pytest.raises(RefusalError, match="length"):
        release(_sum(np.zeros(shape)), debit, NoiseStream.from_system())


@pytest.mark.parametrize("sens_grid", [GRID - 1, GRID + 1, 0])
def test_release_refuses_a_sensitivity_that_was_not_paid_for(debit, sens_grid):
    with pytest.raises(RefusalError, match="sensitivity"):
        release(_sum(sens_grid=sens_grid), debit, NoiseStream.from_system())


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint64])
def test_release_refuses_all_but_whole_numbers(debit, dtype):
    with pytest.raises(RefusalError, match="integers"):
        release(_sum(dtype=dtype), debit, NoiseStream.from_system())


def test_release_refuses_a_second_noise_under_one_debit(debit):
    served = replace(debit, released="sha256:sent")
    with pytest.raises(RefusalError, match="same bytes"):
        release(_sum(), served, NoiseStream.from_system())


def test_release_leaves_the_private_sum_as_it_was(debit):
    total = _sum((1, 2, 3, 4, 5))
    release(total, debit, NoiseStream.from_system())
    assert total.values.tolist() == [1, 2, 3, 4, 5]


def test_nobody_makes_a_proof_or_a_sample_unused_again(debit):
    """Whether it has served says nothing about what it is, so it is no part of equality."""
    sample = NoiseStream.seeded(0).sample(9, 500_000)
    for served in (debit, sample):
        with pytest.raises(ValueError, match="used"):
            replace(served, used=False)
    fresh = replace(debit)
    release(_sum(), debit, NoiseStream.from_system())
    assert debit.used
    assert fresh == debit
