"""Masked sums of up to 150 silos, some of which fall silent at random stages."""

from dataclasses import replace

import numpy as np
import pytest
from masked_federation import Federation

STAGES = ("hello", "share", "release", "confirm", "unmask")
slow = pytest.mark.slow


def _numbers(names, dim, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-(2**24), 2**24, dim) for name in names}


def _fall_silent(federation, seed, stages=STAGES):
    """Return as many silos as may fall silent, each at a random stage: stage -> silos."""
    rng = np.random.default_rng(seed)
    names = federation.names
    silent = rng.permutation(names)[: len(names) - federation.quorum]
    chosen = rng.choice(stages, len(silent))
    return {stage: silent[chosen == stage].tolist() for stage in stages}


@pytest.mark.parametrize("seed", range(4))
def test_random_drop_outs_of_ten_give_the_exact_sum(seed):
    federation = Federation.of(10)
    whole = federation.round(_numbers(federation.names, 50, seed))
    whole.until("unmask", **_fall_silent(federation, seed))
    np.testing.assert_array_equal(whole.total(), whole.expected())


@slow
@pytest.mark.parametrize("seed", range(2))
def test_random_drop_outs_of_thirty_give_the_exact_sum(seed):
    federation = Federation.of(30, hybrid=bool(seed))
    whole = federation.round(_numbers(federation.names, 50, seed))
    whole.until("unmask", **_fall_silent(federation, seed))
    np.testing.assert_array_equal(whole.total(), whole.expected())


@slow
def test_sum_of_a_million_numbers_of_thirty_silos_is_exact():
    federation = Federation.of(30, ring_bits=32, in_bytes=False)
    whole = federation.round(_numbers(federation.names, 1_000_000))
    whole.until("unmask", release=federation.names[1:3], unmask=federation.names[:1])
    np.testing.assert_array_equal(whole.total(), whole.expected())


@pytest.fixture(scope="module", params=[False, True], ids=["x25519", "hybrid"])
def hundred(request):
    """A hundred silos that have shared their seeds: it takes them twenty seconds together."""
    federation = Federation.of(100, hybrid=request.param, in_bytes=False)
    return federation.round(_numbers(federation.names, 20_000)).until("share", share=["silo-050"])


@slow
@pytest.mark.parametrize("ring_bits", [32, 64])
def test_sum_of_a_hundred_silos_is_exact_after_drop_outs(hundred, ring_bits):
    whole, terms = hundred.fork(), replace(hundred.terms, ring_bits=ring_bits)
    whole.terms, whole.federation = terms, replace(whole.federation, terms=terms)
    for silo in whole.silos.values():
        silo.federation = whole.federation
    silent = _fall_silent(whole.federation, ring_bits, ("release", "confirm", "unmask"))
    for stage, names in silent.items():
        getattr(whole, stage)(names[:-1])
    np.testing.assert_array_equal(whole.total(), whole.expected())


@slow
@pytest.mark.parametrize(("n", "hybrid"), [(101, False), (101, True), (127, False), (150, False)])
def test_sum_on_the_sparse_graph_is_exact_after_drop_outs(n, hybrid):
    federation = Federation.of(
        n, n_min=n - n // 10, t_collude=n // 10, hybrid=hybrid, in_bytes=n < 127
    )
    whole = federation.round(_numbers(federation.names, 50))
    whole.until("unmask", **_fall_silent(federation, n))
    assert len(federation.terms.neighbours(whole.roster)["silo-000"]) < 40
    np.testing.assert_array_equal(whole.total(), whole.expected())
