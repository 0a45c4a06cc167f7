"""Does every number that leaves carry fresh, independent Gaussian noise of the planned scale?"""

import os
import warnings
from itertools import combinations

import numpy as np

from ...privacy.clipping import ClippedSum
from ...privacy.noise import Sample
from ...privacy.plan import GRID, MAX_STDDEV_GRID
from . import pvalues
from .probe import ASKED, N_ITEMS, N_STEPS, STEPS_DIM, Array, Ints, Outcome, Probe

_BLOCK = 80
_LAGS = (1, 2, 3, 1024, N_ITEMS // 2)
_WORDS = 64
_MEDIAN = 0.6744897501960817
"""Of the size of a standard normal number."""


def check_scale(probe: Probe) -> Outcome:
    """Every kind of release of an empty silo against its planned stddev, alone and pooled."""
    silos = probe.honest[:1] if probe.quick else probe.honest
    draws = [probe.noise_of(silo, *key) for silo in silos for key in probe.rounds]
    pooled = np.concatenate(draws)
    several = [_scale_p(z) for z in (*draws, pooled)]
    stddev = float(np.sqrt(np.mean(pooled**2)))
    detail = f"stddev {stddev:.4f} of the planned one over {len(pooled)} numbers"
    return Outcome(p_value=pvalues.least(several), statistic=stddev, detail=detail)


def check_scale_with_customers(probe: Probe) -> Outcome:
    """Release minus clipped sum, where customers were sampled: noise must not know how many."""
    several, plan = [], probe.sampled_plan
    rounds = [event for event in plan.releases if event.kind == "sampled"]
    for event, n_users in zip(rounds, (2, 50, 2000), strict=True):
        stream = probe.stream("customers", str(n_users))
        sample = stream.sample(n_users, event.sampling_ppm)
        total = _of_customers(probe, sample, event.dim)
        debit = probe.ledger(plan, "south").debit(event.kind, event.round_num, request=ASKED)
        update = probe.core.release_sum(total, debit, stream)
        several.append(_scale_p((update.values - total.values) / event.silo_stddev_grid))
    detail = "releases of 2, 50 and 2000 customers, a seventh of them sampled"
    return Outcome(p_value=pvalues.least(several), statistic=min(several), detail=detail)


def check_steps(probe: Probe) -> Outcome:
    """Noise of each local step, in clip norms, whether or not there are customers."""
    plan, several = probe.sampled_plan, []
    for round_num, n_users in ((1, 0), (2, 40)):
        event = plan.event_for("steps", round_num)
        debit = probe.ledger(plan, "steps").debit("steps", round_num, request=ASKED)
        sums: list[Ints] = []
        noisy: list[Array] = []

        def gradient(parameters: Array, sample: Sample, sums: list[Ints] = sums) -> ClippedSum:
            total = _of_customers(probe, sample, len(parameters))
            sums.append(total.values)
            return total

        def move(parameters: Array, step: Array, noisy: list[Array] = noisy) -> Array:
            noisy.append(step)
            return parameters

        stream = probe.stream("steps", str(n_users))
        probe.core.release_moves(
            np.zeros(STEPS_DIM), gradient, move, debit, stream, n_users=n_users
        )
        stddev = event.silo_stddev_grid
        draws = [(n * GRID - s) / stddev for n, s in zip(noisy, sums, strict=True)]
        several += [_scale_p(z) for z in (*draws, np.concatenate(draws))]
        several += [pvalues.correlation_p(a, b) for a, b in combinations(draws, 2)]
    detail = f"{N_STEPS} steps of {STEPS_DIM} numbers, without customers and with 40"
    return Outcome(p_value=pvalues.least(several), statistic=min(several), detail=detail)


def check_shape(probe: Probe) -> Outcome:
    """Kolmogorov-Smirnov against the normal distribution."""
    z = np.concatenate([probe.noise_of("north", *key) for key in probe.rounds])
    p_value = pvalues.kolmogorov_p(pvalues.normal_cdf(z))
    return Outcome(p_value=p_value, statistic=p_value, detail=f"over {len(z)} numbers")


def check_tails(probe: Probe) -> Outcome:
    """Numbers beyond 3, 4 and 5 stddev, as many as there should be."""
    n, stddev = (400_000 if probe.quick else 2_000_000), 1_000_003
    z = np.abs(probe.stream("tails").gaussian(n, stddev)) / stddev
    counts = {reach: int(np.sum(z > reach)) for reach in (3, 4, 5)}
    p_value = pvalues.least(
        pvalues.poisson_p(count, n * pvalues.normal_p(reach)) for reach, count in counts.items()
    )
    detail = f"{counts[4]} of {n} beyond 4 stddev, expected {n * pvalues.normal_p(4.0):.1f}"
    return Outcome(p_value=p_value, statistic=float(counts[4]), detail=detail)


def check_support(probe: Probe) -> Outcome:
    """Whole numbers only, every residue as often as another, at the largest scale too."""
    several, faults = [], []
    for label, stddev in (("small", GRID), ("large", MAX_STDDEV_GRID)):
        drawn = probe.stream("support", label).gaussian(1 << 16, stddev)
        if drawn.dtype != np.int64:
            faults.append(f"noise of {drawn.dtype}, not of int64")
            continue
        several.append(pvalues.uniform_counts_p(np.bincount(drawn % 16, minlength=16)))
        several.append(_scale_p(drawn / stddev))
    p_value = pvalues.least(several) if several else None
    detail = f"residues modulo 16 at stddev {GRID} and {MAX_STDDEV_GRID}"
    return Outcome(p_value=p_value, statistic=p_value or 0.0, faults=tuple(faults), detail=detail)


def check_itself(probe: Probe) -> Outcome:
    """Autocorrelation of releases and of their sizes, at half a chunk too (Box-Muller's pairs)."""
    several = []
    for key in probe.rounds:
        z = probe.noise_of("north", *key)
        large = np.where(np.abs(z) > _MEDIAN, 1.0, -1.0)
        for lag in (lag for lag in (*_LAGS, len(z) // 2) if lag <= len(z) // 2):
            several.append(pvalues.correlation_p(z[lag:], z[:-lag]))
            several.append(pvalues.correlation_p(large[lag:], large[:-lag]))
    return Outcome(
        p_value=pvalues.least(several),
        statistic=min(several),
        detail=f"{len(several)} lags and releases",
    )


def check_silos(probe: Probe) -> Outcome:
    """Correlation between silos, between rounds of one kind, and between kinds."""
    silos = probe.honest[:3] if probe.quick else probe.honest
    draws = [probe.noise_of(silo, *key) for silo in silos for key in probe.rounds]
    several = [
        pvalues.correlation_p(one[: min(len(one), len(two))], two[: min(len(one), len(two))])
        for one, two in combinations(draws, 2)
    ]
    detail = f"{len(several)} pairs of releases of {len(silos)} silos"
    return Outcome(p_value=pvalues.least(several), statistic=min(several), detail=detail)


def check_shares(probe: Probe) -> Outcome:
    """The honest silos' shares must add up to the noise that the guarantee rests on."""
    cohort, several, faults = probe.shared_plan.cohort, [], []
    honest = cohort.n_min - cohort.t_collude
    for event in probe.shared_plan.releases:
        if honest * event.silo_stddev_grid**2 < event.stddev_grid**2:
            faults.append(f"{honest} shares of {event.kind} have less than the planned variance")
    for key in probe.rounds if not probe.quick else probe.rounds[:1]:
        event = probe.shared_plan.event_for(*key)
        shares = [probe.noise_of(silo, *key) * event.silo_stddev_grid for silo in probe.honest]
        several.append(_scale_p(np.sum(shares, axis=0) / event.stddev_grid))
    detail = f"sums of {honest} silos' releases"
    return Outcome(
        p_value=pvalues.least(several),
        statistic=min(several),
        faults=tuple(faults),
        detail=detail,
    )


def check_untouched(probe: Probe) -> Outcome:
    """Every coordinate is noisy, also those that no customer touched; block by block."""
    users = np.repeat(np.arange(30), 2)
    items = np.tile([5, 900], 30)
    histories = probe.core.bound_contributions(users, items, 30, N_ITEMS)
    total = probe.core.popularity_sum(histories, GRID)
    debit = probe.ledger(probe.shared_plan, "touched").debit("popularity", 1, request=ASKED)
    update = probe.core.release_sum(total, debit, probe.stream("touched"))
    z = (update.values - total.values) / debit.event.silo_stddev_grid
    untouched = total.values == 0
    several, bare, silos = [_scale_p(z[untouched])], 0, probe.honest[:3]
    for key in probe.rounds:
        clean = probe.noise_of("north", *key)
        bare += int(np.sum(~np.any([probe.noise_of(silo, *key) for silo in silos], axis=0)))
        cut = len(clean) // _BLOCK * _BLOCK
        blocks = [*clean[:cut].reshape(-1, _BLOCK), clean[-_BLOCK:]]
        several += [_scale_p(block) for block in blocks]
    faults = (f"{bare} numbers were released as 0 by {len(silos)} silos",) if bare else ()
    detail = f"{int(untouched.sum())} untouched numbers, blocks of {_BLOCK}"
    return Outcome(
        p_value=pvalues.least(several),
        statistic=float(bare),
        faults=faults,
        detail=detail,
    )


def check_system(probe: Probe) -> Outcome:
    """Streams keyed by the system differ here, in another process, and from all seeded ones."""
    fresh = probe.core.system_stream
    here = [fresh().gaussian(_WORDS, GRID).tobytes() for _ in range(3)]
    here += _in_another_process(probe)
    here += [fresh().gaussian(_WORDS, GRID).tobytes() for _ in range(3)]
    seeded = [
        probe.core.seeded_stream(seed, *labels).gaussian(_WORDS, GRID).tobytes()
        for seed in (0, 1, 42)
        for labels in ((), ("north",))
    ]
    faults = []
    if len(set(here)) < len(here):
        faults.append("the system's stream repeats itself")
    if set(here) & set(seeded):
        faults.append("the system's stream is a seeded one")
    if "seeded" in fresh().source or "seeded" not in probe.core.seeded_stream(0).source:
        faults.append("a stream does not say where it comes from")
    drawn = fresh().gaussian(N_ITEMS, GRID) / GRID
    p_value = _scale_p(drawn)
    detail = "seven streams of two processes"
    return Outcome(p_value=p_value, statistic=p_value, faults=tuple(faults), detail=detail)


def check_streams(probe: Probe) -> Outcome:
    """One stream never repeats itself; streams of other labels are independent."""
    seed = int(probe.rng.integers(2**31))
    stream = probe.core.seeded_stream(seed, "north", "gram", "1")
    draws = [stream.gaussian(4096, GRID) / GRID for _ in range(3)]
    labels = [("south", "gram", "1"), ("north", "gram", "2"), ("north", "popularity", "1"), ()]
    draws += [probe.core.seeded_stream(seed, *some).gaussian(4096, GRID) / GRID for some in labels]
    draws.append(
        probe.core.seeded_stream(seed + 1, "north", "gram", "1").gaussian(4096, GRID) / GRID
    )
    several = [pvalues.correlation_p(one, two) for one, two in combinations(draws, 2)]
    return Outcome(
        p_value=pvalues.least(several),
        statistic=min(several),
        detail=f"{len(draws)} draws of {1 + len(labels) + 1} streams",
    )


def check_lattice(probe: Probe) -> Outcome:
    """Released numbers are int64 on one lattice, whatever was added up (F8)."""
    several, faults = [], []
    ledger = probe.ledger(probe.shared_plan, "lattice")
    event = probe.shared_plan.releases[0]
    for attempt, n_users in enumerate((0, 1, 7), start=1):
        rows = np.arange(n_users)
        items = np.full(n_users, 3)
        histories = probe.core.bound_contributions(rows, items, n_users, N_ITEMS)
        total = probe.core.popularity_sum(histories, GRID - 1)  # an odd number of grid units
        if total.values.dtype != np.int64:
            faults.append(f"a clipped sum of {total.values.dtype}")
        total = probe.core.popularity_sum(histories, GRID)
        debit = ledger.debit(event.kind, event.round_num, attempt, request=ASKED)
        update = probe.core.release_sum(total, debit, probe.stream("lattice", str(attempt)))
        if update.values.dtype != np.int64:
            faults.append(f"a release of {update.values.dtype}")
            continue
        several.append(pvalues.uniform_counts_p(np.bincount(update.values % 8, minlength=8)))
    p_value = pvalues.least(several) if several else None
    detail = "residues modulo 8 of releases of 0, 1 and 7 customers"
    return Outcome(p_value=p_value, statistic=p_value or 0.0, faults=tuple(faults), detail=detail)


def _scale_p(z: Array) -> float:
    return pvalues.chi_square_p(float(np.sum(z**2)), len(z))


def _of_customers(probe: Probe, sample: Sample, dim: int) -> ClippedSum:
    """Return the sum of the sampled customers, whose gradients are random and long."""
    total = probe.core.gradient_sum(dim, 1.0, GRID, sample)
    n_sampled = len(sample.user_nums)
    if n_sampled:
        rng = np.random.default_rng(n_sampled)
        wide = 64
        layer = probe.core.factors(
            deltas=rng.normal(size=(n_sampled, 1, wide)),
            inputs=rng.normal(size=(n_sampled, 1, dim // wide)),
        )
        total.add(sample.user_nums, [layer])
    return total.total()


def _in_another_process(probe: Probe) -> list[bytes]:
    """Draw once in a fork of this process, which shares everything but time and entropy."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forks of programs with threads
        child = os.fork()
    if not child:
        try:
            os.write(writer, probe.core.system_stream().gaussian(_WORDS, GRID).tobytes())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        drawn = pipe.read()
    os.waitpid(child, 0)
    return [drawn]
