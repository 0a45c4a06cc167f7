"""A sum that was not unmasked is told from one that was, by public facts alone."""

import numpy as np
import pytest

from fondaco.server.masked import is_plausible
from fondaco.shared.privacy.plan import GRID


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("declared", [1, 400, 10**6])
def test_noise_of_the_whole_ring_is_no_sum(make_plan, make_masked, ring_bits, declared):
    terms = make_masked(10, ring_bits=64)
    plan = make_plan(**terms, public={"declared_users": str(declared)})
    object.__setattr__(plan, "ring_bits", ring_bits)
    rng = np.random.default_rng(1)
    whole = rng.integers(-(2 ** (ring_bits - 1)), 2 ** (ring_bits - 1), 5000)
    assert not is_plausible(whole, plan)


def test_sum_of_all_declared_customers_is_plausible(make_plan, make_masked):
    plan = make_plan(**make_masked(10, ring_bits=64), public={"declared_users": "400"})
    assert is_plausible(np.full(5000, 400 * GRID), plan)
    assert is_plausible(np.full(5000, -400 * GRID), plan)
