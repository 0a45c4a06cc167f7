import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fondaco.shared.calibration import Statistic
from fondaco.shared.chain.keys import Identity, key_name
from fondaco.shared.errors import ConfigError, RefusalError
from fondaco.shared.privacy.clipping import ClippedSum
from fondaco.shared.privacy.events import EVERYBODY
from fondaco.shared.privacy.gradients import Factors, GradientSum
from fondaco.shared.privacy.ledger import Ledger
from fondaco.shared.privacy.noise import NoiseStream, Sample
from fondaco.shared.privacy.plan import GRID, RunPlan
from fondaco.shared.privacy.release import MAX_MOVED, release, release_steps

DIM, N_STEPS, N_USERS, HALF = 5, 4, 40, 500_000
START = np.array([1.0, -2.0, 0.0, 3.0, 0.5])
STEPS = Statistic(kind="popularity", share=1, dim=DIM, sampling_ppm=HALF, steps=N_STEPS)

OWNER = Identity.seeded(0, key_name("north"))


@pytest.fixture(scope="module")
def steps_plan(make_plan):
    return make_plan([STEPS], epsilon=8.0, trust="silo")


@pytest.fixture
def debit(tmp_path, steps_plan):
    with Ledger.open_or_create(tmp_path / "north.db", "north", OWNER, steps_plan) as ledger:
        return ledger.debit("popularity", 1, request="sha256:asked")


def _zeros(parameters, sample):
    return ClippedSum(values=np.zeros(DIM, dtype=np.int64), sens_grid=GRID, sample=sample)


def _descend(parameters, noisy):
    return parameters - 0.1 * noisy


def _stay(parameters, noisy):
    return parameters


def _run(debit, gradient=_zeros, move=_descend, seed=0):
    return release_steps(
        START.copy(), gradient, move, debit, NoiseStream.seeded(seed), n_users=N_USERS
    )


def test_each_step_draws_one_noisy_sum(debit):
    sums = []
    _run(debit, move=lambda parameters, noisy: sums.append(noisy) or parameters)
    assert len(sums) == N_STEPS
    assert len({noisy.tobytes() for noisy in sums}) == N_STEPS


def test_each_step_draws_its_own_customers(debit):
    samples = []

    def gradient(parameters, sample):
        samples.append(sample.user_nums.tolist())
        return _zeros(parameters, sample)

    _run(debit, gradient)
    assert len({tuple(sample) for sample in samples}) == N_STEPS
    assert all(set(sample) < set(range(N_USERS)) for sample in samples)


def test_steps_of_zeros_move_by_the_noise_alone(debit):
    update = _run(debit)
    stream, expected = NoiseStream.seeded(0), np.zeros(DIM)
    for _ in range(N_STEPS):
        stream.sample(N_USERS, HALF)
        expected -= 0.1 * stream.gaussian(DIM, debit.event.silo_stddev_grid)
    assert update.values.dtype == np.int64
    assert np.max(np.abs(update.values - expected)) <= 1


def test_noise_of_a_step_has_the_scale_that_was_paid_for(debit):
    """chi-square of zeros over 4 x 4096 numbers; false alarms: 1e-6."""
    dim, sums = 4096, []
    wide = replace(debit, event=replace(debit.event, dim=dim))

    def gradient(parameters, sample):
        zeros = np.zeros(dim, dtype=np.int64)
        return ClippedSum(values=zeros, sens_grid=GRID, sample=sample)

    release_steps(
        np.zeros(dim),
        gradient,
        lambda parameters, noisy: sums.append(noisy) or parameters,
        wide,
        NoiseStream.seeded(3),
        n_users=N_USERS,
    )
    statistic = np.sum((np.concatenate(sums) / float(debit.event.silo_noise_multiplier)) ** 2)
    degrees = N_STEPS * dim
    assert min(stats.chi2.cdf(statistic, degrees), stats.chi2.sf(statistic, degrees)) > 5e-7


def test_move_that_stays_releases_zeros(debit):
    assert not _run(debit, move=_stay).values.any()


def test_move_reads_the_sum_in_clip_norms_and_the_update_is_in_grid_units(debit):
    def gradient(parameters, sample):
        values = np.arange(DIM, dtype=np.int64) * GRID * 1000
        return ClippedSum(values=values, sens_grid=GRID, sample=sample)

    update = _run(debit, gradient, move=lambda parameters, noisy: parameters + noisy)
    assert np.max(np.abs(update.values / GRID / N_STEPS - 1000 * np.arange(DIM))) < 100


def test_gradient_sees_where_the_steps_have_led(debit):
    seen = []

    def gradient(parameters, sample):
        seen.append(parameters.copy())
        return _zeros(parameters, sample)

    _run(debit, gradient, move=lambda parameters, noisy: parameters + 1.0)
    assert np.array_equal(seen, [START + step for step in range(N_STEPS)])


def test_empty_samples_still_step_with_noise(debit):
    def gradient(parameters, sample):
        assert len(sample.user_nums) == 0
        return GradientSum(DIM, 1.0, GRID, sample).total()

    update = release_steps(START, gradient, _descend, debit, NoiseStream.seeded(0), n_users=0)
    assert np.count_nonzero(update.values) == DIM


def test_real_customers_move_the_parameters_by_their_clipped_gradients(debit):
    quiet = replace(debit, event=replace(debit.event, silo_stddev_grid=1, sampling_ppm=EVERYBODY))

    def gradient(parameters, sample):
        n_users = len(sample.user_nums)
        total = GradientSum(DIM, 2.0, GRID, sample)
        ones = np.ones((n_users, 1, 1))
        deltas = np.tile(100.0 * np.eye(DIM)[0], (n_users, 1, 1))
        total.add(sample.user_nums, [Factors(deltas=deltas, inputs=ones)])
        return total.total()

    update = _run(quiet, gradient, move=lambda parameters, noisy: parameters - noisy)
    expected = -N_STEPS * N_USERS * GRID * np.eye(DIM)[0]
    assert np.max(np.abs(update.values - expected)) < 2e-3 * N_STEPS * N_USERS * GRID


@pytest.mark.parametrize(
    ("far", "expected"),
    [
        (1e10, MAX_MOVED),
        (-1e300, -MAX_MOVED),
        (np.inf, MAX_MOVED),
        (-np.inf, -MAX_MOVED),
        (np.nan, 0),
    ],
)
@pytest.mark.filterwarnings("error")
def test_parameters_that_ran_away_are_cut_off_and_released(debit, far, expected):
    update = _run(debit, move=lambda parameters, noisy: parameters + far)
    assert update.values.tolist() == [int(expected)] * DIM


@pytest.mark.parametrize("sign", [-1, 1])
def test_whether_steps_end_in_an_update_tells_nothing_about_the_sum(debit, sign):
    """A move that runs away on one side of a threshold would be a free bit per attempt."""

    def gradient(parameters, sample):
        values = np.full(DIM, sign * 1000 * GRID, dtype=np.int64)
        return ClippedSum(values=values, sens_grid=GRID, sample=sample)

    update = _run(debit, gradient, lambda p, noisy: np.where(noisy.sum() > 0, np.inf, p))
    assert len(update.values) == DIM


def _leak(parameters, sample):
    """A gradient that writes what it knows where the update is read from."""
    parameters[:] = 1e6
    return _zeros(parameters, sample)


def test_gradient_that_writes_into_the_parameters_moves_nothing(debit):
    start = START.copy()
    update = release_steps(start, _leak, _stay, debit, NoiseStream.seeded(0), n_users=N_USERS)
    assert not update.values.any()
    assert np.array_equal(start, START)


def test_gradient_that_writes_into_the_start_moves_nothing(debit):
    start = START.copy()

    def gradient(parameters, sample):
        start[:] = 1e6
        return _zeros(parameters, sample)

    update = release_steps(start, gradient, _stay, debit, NoiseStream.seeded(0), n_users=N_USERS)
    assert not update.values.any()


def test_gradient_that_kept_the_parameters_cannot_change_them_later(debit):
    kept = []

    def gradient(parameters, sample):
        kept.append(parameters)
        for old in kept:
            old[:] = 1e6
        return _zeros(parameters, sample)

    assert not _run(debit, gradient, _stay).values.any()


def test_gradient_cannot_change_what_move_returned(debit):
    mine = START.copy()

    def gradient(parameters, sample):
        mine[:] = 1e6
        return _zeros(parameters, sample)

    update = _run(debit, gradient, lambda parameters, noisy: np.copyto(mine, parameters) or mine)
    assert not update.values.any()


def test_move_in_place_releases_what_a_copying_one_does(debit):
    def in_place(parameters, noisy):
        parameters -= 0.1 * noisy
        return parameters

    start = START.copy()
    stream = NoiseStream.seeded(0)
    moved = release_steps(start, _zeros, in_place, replace(debit), stream, n_users=N_USERS)
    assert np.array_equal(moved.values, _run(debit).values)
    assert np.array_equal(start, START)
    assert moved.values.any()


@pytest.mark.parametrize("length", [0, 1, DIM - 1, DIM + 1])
def test_start_of_another_length_is_refused(debit, length):
    with pytest.raises(RefusalError, match="planned"):
        release_steps(
            np.zeros(length), _zeros, _stay, debit, NoiseStream.seeded(0), n_users=N_USERS
        )


@pytest.mark.parametrize("shape", [(DIM, 1), (1, DIM), (DIM + 1,), (1,), ()])
def test_move_to_another_shape_is_refused(debit, shape):
    with pytest.raises(RefusalError, match="planned"):
        _run(debit, move=lambda parameters, noisy: np.zeros(shape))


def test_first_steps_sample_serves_no_other_step(debit):
    samples = []

    def gradient(parameters, sample):
        samples.append(sample)
        return _zeros(parameters, samples[0])

    with pytest.raises(RefusalError, match="another sample"):
        _run(debit, gradient)
    assert len(samples) == 2


@pytest.mark.parametrize("forged", [np.arange(N_USERS), np.array([7])])
def test_sample_made_by_hand_is_refused(debit, forged):
    mine = Sample(user_nums=forged, sampling_ppm=HALF)
    with pytest.raises(RefusalError, match="another sample"):
        _run(debit, lambda parameters, sample: _zeros(parameters, mine))


def test_copy_of_the_sample_is_refused(debit):
    with pytest.raises(RefusalError, match="another sample"):
        _run(debit, lambda parameters, sample: _zeros(parameters, replace(sample)))


def test_steps_carry_public_labels_only(debit, steps_plan):
    update = _run(debit)
    assert (update.silo_id, update.plan_digest) == ("north", steps_plan.digest)
    assert (update.kind, update.round_num, update.attempt) == ("popularity", 1, 1)
    assert update.debit_seq == debit.seq


def test_steps_are_taken_once_per_proof(debit):
    _run(debit)
    with pytest.raises(RefusalError, match="send the same bytes"):
        _run(debit)


def test_steps_that_broke_off_are_not_taken_again_under_the_same_proof(debit):
    def gradient(parameters, sample):
        raise ValueError("a bug of the model")

    with pytest.raises(ValueError, match="bug"):
        _run(debit, gradient)
    with pytest.raises(RefusalError):
        _run(debit)


def test_steps_are_refused_after_a_release(debit):
    with pytest.raises(RefusalError, match="same bytes"):
        _run(replace(debit, released="sha256:sent"))


@pytest.mark.parametrize(
    "change",
    [
        {"values": np.zeros(DIM + 1, dtype=np.int64)},
        {"sens_grid": GRID // 2},
        {"sens_grid": GRID * 2},
    ],
)
def test_steps_refuse_a_sum_that_was_not_paid_for(debit, change):
    with pytest.raises(RefusalError, match="paid for"):
        _run(debit, lambda parameters, sample: replace(_zeros(parameters, sample), **change))


def test_steps_refuse_a_sum_of_everybody_where_a_sample_was_paid_for(debit):
    with pytest.raises(RefusalError, match="another sample"):
        _run(debit, lambda parameters, sample: replace(_zeros(parameters, sample), sample=None))


def test_steps_refuse_floats(debit):
    def gradient(parameters, sample):
        return replace(_zeros(parameters, sample), values=np.zeros(DIM))

    with pytest.raises(RefusalError, match="integers"):
        _run(debit, gradient)


def test_release_refuses_what_was_planned_in_steps(debit):
    sample = NoiseStream.seeded(0).sample(N_USERS, HALF)
    with pytest.raises(RefusalError, match="4 steps"):
        release(_zeros(START, sample), debit, NoiseStream.seeded(0))
    assert not debit.used


def test_release_refuses_everybody_where_a_sample_was_paid_for(debit):
    once = replace(debit, event=replace(debit.event, steps=1))
    everybody = NoiseStream.seeded(0).sample(N_USERS, EVERYBODY)
    with pytest.raises(RefusalError, match="sampling"):
        release(_zeros(START, everybody), once, NoiseStream.seeded(0))


def test_release_takes_a_sample_that_was_paid_for(debit):
    once = replace(debit, event=replace(debit.event, steps=1))
    stream = NoiseStream.seeded(0)
    update = release(_zeros(START, stream.sample(N_USERS, HALF)), once, stream)
    assert np.count_nonzero(update.values) == DIM


def test_one_sample_serves_one_release(debit):
    once = replace(debit, event=replace(debit.event, steps=1))
    stream = NoiseStream.seeded(0)
    total = _zeros(START, stream.sample(N_USERS, HALF))
    release(total, replace(once), stream)
    for again in (total, _zeros(START, total.sample)):
        with pytest.raises(RefusalError, match="served before"):
            release(again, replace(once), stream)


def test_sample_of_everybody_may_serve_again(debit):
    event = replace(debit.event, steps=1, sampling_ppm=EVERYBODY)
    stream = NoiseStream.seeded(0)
    everybody = stream.sample(N_USERS, EVERYBODY)
    for _ in range(2):
        release(_zeros(START, everybody), replace(debit, event=event), stream)
    release(_zeros(START, None), replace(debit, event=event), stream)


def test_plan_of_shared_noise_refuses_local_steps(plan):
    first, second = plan.releases
    with pytest.raises(ConfigError, match="cannot be shared"):
        replace(plan, releases=(replace(first, steps=2), second))


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"steps": 1001}, {"sampling_ppm": 0}, {"sampling_ppm": EVERYBODY + 1}]
)
def test_plan_refuses_samples_and_steps_out_of_range(steps_plan, change):
    with pytest.raises(ConfigError, match="out of range"):
        replace(steps_plan, releases=(replace(steps_plan.releases[0], **change),))


def test_plan_charges_every_step(steps_plan):
    more = replace(steps_plan.releases[0], steps=N_STEPS + 1)
    with pytest.raises(ConfigError, match="budget"):
        replace(steps_plan, releases=(more,))


def test_plan_of_samples_and_steps_survives_its_canonical_text(steps_plan):
    again = RunPlan.from_json(steps_plan.to_json())
    assert (again, again.digest) == (steps_plan, steps_plan.digest)
    event = json.loads(steps_plan.to_json())["releases"][0]
    assert (event["sampling_ppm"], event["steps"]) == (HALF, N_STEPS)
