import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fondaco.shared.fusion import FUSERS, standardise
from fondaco.shared.fusion.stacked import fit_listwise

each = pytest.mark.parametrize("fuser", FUSERS.values(), ids=FUSERS.keys())

SHAPE = (3, 5)
# Whole numbers as scores: what is larger stays larger in float32.
PLANES = hnp.arrays(np.float32, SHAPE, elements=st.integers(-50, 50).map(float))
MASKS = hnp.arrays(np.bool_, SHAPE)
NO_MASK = np.zeros(SHAPE, dtype=bool)
few = settings(max_examples=40)


def _fuse(fuser, planes, mask=NO_MASK, weights=None):
    weights = np.ones(len(planes)) if weights is None else np.array(weights)
    return fuser.fuse([fuser.prepare(plane, mask) for plane in planes], weights)


@each
@few
@given(first=PLANES, second=PLANES)
def test_fused_score_is_monotone_in_each_input(fuser, first, second):
    """An item that no scorer puts lower than another one is not fused lower either."""
    fused = _fuse(fuser, [first, second], weights=[0.7, 0.3])
    for user in range(SHAPE[0]):
        for a in range(SHAPE[1]):
            above = (first[user, a] >= first[user]) & (second[user, a] >= second[user])
            assert np.all(fused[user, a] >= fused[user, above] - 1e-6)


@each
@few
@given(plane=PLANES)
def test_one_scorer_alone_keeps_its_order(fuser, plane):
    fused = _fuse(fuser, [plane])
    assert np.array_equal(
        np.argsort(-fused, axis=1, kind="stable"), np.argsort(-plane, axis=1, kind="stable")
    )


@each
@few
@given(plane=PLANES)
def test_equal_scores_stay_equal(fuser, plane):
    fused = _fuse(fuser, [plane])
    for user in range(SHAPE[0]):
        for value in np.unique(plane[user]):
            assert len(set(fused[user, plane[user] == value].tolist())) == 1


@each
@few
@given(plane=PLANES, other=PLANES, holes=MASKS)
def test_unknown_items_get_nothing_from_a_scorer(fuser, plane, other, holes):
    unknown = np.where(holes, np.float32(np.nan), plane)
    prepared = fuser.prepare(unknown, NO_MASK)
    assert np.isfinite(prepared).all()
    assert not prepared[holes].any()
    fused = _fuse(fuser, [unknown, other])
    np.testing.assert_allclose(fused[holes], _fuse(fuser, [other])[holes], atol=1e-6)


@each
@few
@given(plane=PLANES, junk=PLANES, mask=MASKS)
def test_masked_items_are_zero_and_never_read(fuser, plane, junk, mask):
    prepared = fuser.prepare(plane, mask)
    assert not prepared[mask].any()
    assert np.array_equal(prepared, fuser.prepare(np.where(mask, junk, plane), mask))


@each
@few
@given(plane=PLANES, mask=MASKS, scale=st.sampled_from([0.5, 4.0, 1024.0]))
def test_units_of_a_scorer_do_not_matter(fuser, plane, mask, scale):
    found = fuser.prepare(np.float32(scale) * plane + np.float32(8.0), mask)
    np.testing.assert_allclose(found, fuser.prepare(plane, mask), atol=1e-4)


@each
def test_a_scorer_without_an_opinion_has_no_say(fuser):
    flat = np.full(SHAPE, 0.1, dtype=np.float32)
    assert not fuser.prepare(flat, NO_MASK).any()
    assert not fuser.prepare(np.full_like(flat, np.nan), NO_MASK).any()
    assert not fuser.prepare(flat, ~NO_MASK).any()


@each
def test_weight_zero_leaves_a_scorer_out(fuser):
    planes = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    assert np.array_equal(_fuse(fuser, planes, weights=[1.0, 0.0]), _fuse(fuser, planes[:1]))


@each
def test_preparing_nobody_gives_nobody(fuser):
    assert fuser.prepare(np.empty((0, 4), np.float32), np.empty((0, 4), bool)).shape == (0, 4)


@each
def test_fuser_leaves_its_inputs_as_they_were(fuser):
    planes = list(np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32))
    before = [plane.copy() for plane in planes]
    _fuse(fuser, planes)
    assert all(np.array_equal(a, b) for a, b in zip(planes, before, strict=True))


def test_z_scores_have_mean_zero_and_spread_one_over_what_is_not_masked():
    scores = np.array([[1.0, 3.0, 100.0, np.nan]], dtype=np.float32)
    mask = np.array([[False, False, True, False]])
    assert standardise(scores, mask).tolist() == [[-1.0, 1.0, 0.0, 0.0]]


def _listwise_case(n_users=300):
    """A plane that knows the targets and one that knows nothing."""
    rng = np.random.default_rng(0)
    targets = rng.random((n_users, 20)) < 0.1
    targets[:, 0] |= ~targets.any(axis=1)
    good = (targets + rng.normal(0, 0.5, targets.shape)).astype(np.float32)
    noise = rng.normal(size=targets.shape).astype(np.float32)
    return [good, noise], np.zeros_like(targets), targets


def test_listwise_weights_prefer_the_scorer_that_knows():
    planes, mask, targets = _listwise_case()
    good, noise = fit_listwise(planes, mask, targets, np.array([1.0, 1.0]))
    assert good > 1.0
    assert 0 <= noise < 0.2


def test_listwise_weights_without_customers_are_the_prior():
    planes, mask, targets = _listwise_case()
    nobody = slice(0, 0)
    found = fit_listwise([p[nobody] for p in planes], mask[nobody], targets[nobody], np.ones(2))
    assert found.tolist() == [1.0, 1.0]


def test_listwise_weights_of_one_customer_stay_near_the_prior():
    planes, mask, targets = _listwise_case()
    one = slice(0, 1)
    few = fit_listwise([p[one] for p in planes], mask[one], targets[one], np.ones(2))
    many = fit_listwise(planes, mask, targets, np.ones(2))
    assert np.abs(few - 1).sum() < np.abs(many - 1).sum()


def test_listwise_weights_never_read_masked_items():
    planes, mask, targets = _listwise_case(50)
    mask = mask.copy()
    mask[:, 5] = True
    targets = targets & ~mask
    targets[:, 0] |= ~targets.any(axis=1)
    junk = [np.where(mask, np.float32(0.0), plane) for plane in planes]
    other = [np.where(mask, np.float32(1e4), plane) for plane in planes]
    np.testing.assert_allclose(
        fit_listwise(junk, mask, targets, np.ones(2)),
        fit_listwise(other, mask, targets, np.ones(2)),
    )
