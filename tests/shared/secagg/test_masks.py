"""Masks against one-shot ChaCha20 and plain numpy.

Keys are fixed, so statistical tests pass always or never.
"""

import hashlib
import tracemalloc

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fondaco.shared.errors import CodecError
from fondaco.shared.secagg.masks import add_masks, from_ring, to_ring

CHUNK = 1 << 18
DTYPES = [np.uint32, np.uint64]
each_ring = pytest.mark.parametrize("ring_bits", [32, 64])
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def _key(label):
    return hashlib.sha256(f"mask {label}".encode()).digest()


def _keys(signs):
    return [(_key(num), sign) for num, sign in enumerate(signs)]


def _keystream(key, dim, dtype):
    size = dim * np.dtype(dtype).itemsize
    cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None)
    words = np.frombuffer(cipher.encryptor().update(bytes(size)), f"<u{np.dtype(dtype).itemsize}")
    return words.astype(dtype)


def _reference(values, keys):
    """One whole keystream after the other, as Python reads the definition."""
    total = values.copy()
    for key, sign in keys:
        mask = _keystream(key, len(values), values.dtype)
        total = total + mask if sign == 1 else total - mask
    return total


def _vector(dim, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, dim, dtype=dtype, endpoint=True)


lengths = st.builds(
    lambda chunks, off, width: max(0, chunks * CHUNK // width + off),
    st.integers(0, 3),
    st.integers(-17, 17),
    st.sampled_from([4, 8]),
)
signs_of_keys = st.lists(st.sampled_from([1, -1]), max_size=4)


@settings(deadline=None, max_examples=60)
@given(dim=lengths, dtype=st.sampled_from(DTYPES), signs=signs_of_keys)
def test_masked_vector_equals_plain_sums_of_keystreams(dim, dtype, signs):
    values = _vector(dim, dtype)
    expected = _reference(values, _keys(signs))
    add_masks(values, _keys(signs))
    np.testing.assert_array_equal(values, expected)


@settings(deadline=None, max_examples=40)
@given(dim=lengths, dtype=st.sampled_from(DTYPES), signs=signs_of_keys)
def test_subtracting_what_was_added_gives_the_vector_back(dim, dtype, signs):
    values = _vector(dim, dtype)
    add_masks(values, _keys(signs))
    add_masks(values, [(key, -sign) for key, sign in reversed(_keys(signs))])
    np.testing.assert_array_equal(values, _vector(dim, dtype))


def test_first_words_are_those_of_the_published_keystream():
    """All-zero key and nonce: 76 b8 e0 ad a0 f1 3d 90 ... (RFC 8439, A.1, test vector 1)."""
    narrow, wide = np.zeros(2, np.uint32), np.zeros(1, np.uint64)
    add_masks(narrow, [(bytes(32), 1)])
    add_masks(wide, [(bytes(32), 1)])
    assert [hex(word) for word in narrow] == ["0xade0b876", "0x903df1a0"]
    assert hex(wide[0]) == "0x903df1a0ade0b876"


@each_dtype
def test_part_of_an_array_is_masked_where_it_lies(dtype):
    whole = np.zeros(10, dtype)
    add_masks(whole[3:7], [(_key(0), 1)])
    np.testing.assert_array_equal(whole[3:7], _keystream(_key(0), 4, dtype))
    assert not whole[:3].any()
    assert not whole[7:].any()


@each_dtype
def test_masked_zeros_look_like_uniform_bytes(dtype):
    """False alarms of fresh keys: 1e-6."""
    values = np.zeros(1 << 20, dtype)
    add_masks(values, _keys([1, -1, 1]))
    counts = np.bincount(values.view(np.uint8), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_chi_square_sees_zeros_that_stayed_bare():
    """The test above has power: one number in a thousand left unmasked is seen."""
    values = np.zeros(1 << 20, np.uint32)
    add_masks(values, _keys([1]))
    values[::1000] = 0
    counts = np.bincount(values.view(np.uint8), minlength=256)
    assert stats.chisquare(counts).pvalue < 1e-6


def test_extra_memory_stays_constant():
    peaks = []
    for dim in (10_000, 4_000_000 - 1):
        values = np.zeros(dim, np.uint32)
        tracemalloc.start()
        add_masks(values, _keys([1, -1]))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 2 * CHUNK + 50_000


@pytest.mark.parametrize(
    "keys",
    [
        [(b"short", 1)],
        [(bytes(33), 1)],
        [(bytes(32), 0)],
        [(bytes(32), 2)],
        [(bytes(32), 1), (bytes(32), 1)],
        [(bytes(32), 1), (bytes(32), -1)],
    ],
)
def test_bad_keys_are_refused_and_nothing_is_masked(keys):
    values = np.zeros(5, np.uint32)
    with pytest.raises(CodecError):
        add_masks(values, [(_key("good"), 1), *keys])
    assert not values.any()


@pytest.mark.parametrize("dtype", ["i4", "i8", "u2", "f4", "f8", ">u4", ">u8"])
def test_other_numbers_than_ring_words_are_refused(dtype):
    with pytest.raises(CodecError, match="no vector"):
        add_masks(np.zeros(5, dtype), [(_key(0), 1)])


def test_matrix_is_refused():
    with pytest.raises(CodecError, match="no vector"):
        add_masks(np.zeros((5, 5), np.uint32), [(_key(0), 1)])


@each_ring
def test_ring_keeps_its_extremes(ring_bits):
    half = 2 ** (ring_bits - 1)
    values = np.array([-half, -half + 1, -1, 0, 1, half - 1], dtype=np.int64)
    words = to_ring(values, ring_bits)
    assert [int(word) for word in words] == [half, half + 1, 2 * half - 1, 0, 1, half - 1]
    np.testing.assert_array_equal(from_ring(words, ring_bits), values)


def test_value_beyond_the_ring_wraps_around():
    values = np.array([2**31, -(2**31) - 1, 2**40 + 5, np.iinfo(np.int64).min], dtype=np.int64)
    assert from_ring(to_ring(values, 32), 32).tolist() == [-(2**31), 2**31 - 1, 5, 0]


@settings(deadline=None)
@given(
    ring_bits=st.sampled_from([32, 64]),
    pairs=st.lists(st.tuples(st.integers(-(2**30), 2**30 - 1), st.integers(-(2**30), 2**30 - 1))),
)
def test_sums_commute_with_the_ring(ring_bits, pairs):
    left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    total = to_ring(left, ring_bits) + to_ring(right, ring_bits)
    np.testing.assert_array_equal(from_ring(total, ring_bits), left + right)


@each_ring
def test_masks_of_a_pair_cancel_in_the_sum(ring_bits):
    first, second = np.array([-5, 7, 0]), np.array([3, -9, 1])
    masked = [to_ring(first, ring_bits), to_ring(second, ring_bits)]
    add_masks(masked[0], [(_key("pair"), 1)])
    add_masks(masked[1], [(_key("pair"), -1)])
    assert from_ring(masked[0] + masked[1], ring_bits).tolist() == [-2, -2, 1]
    assert from_ring(masked[0], ring_bits).tolist() != first.tolist()


@each_ring
def test_ring_conversions_leave_their_input_alone(ring_bits):
    values = np.array([-1, 0, 1])
    words = to_ring(values, ring_bits)
    words += 1
    back = from_ring(words, ring_bits)
    back += 1
    assert values.tolist() == [-1, 0, 1]
    assert words.tolist() == [0, 1, 2]


@pytest.mark.parametrize("ring_bits", [0, 16, 63, 65])
def test_unknown_ring_is_refused(ring_bits):
    with pytest.raises(CodecError, match="ring_bits"):
        to_ring(np.zeros(3, np.int64), ring_bits)
    with pytest.raises(CodecError, match="ring_bits"):
        from_ring(np.zeros(3, np.uint32), ring_bits)


def test_floats_and_words_of_another_ring_are_refused():
    with pytest.raises(CodecError, match="float64"):
        to_ring(np.zeros(3), 32)
    with pytest.raises(CodecError, match="uint64"):
        from_ring(np.zeros(3, np.uint64), 32)
    with pytest.raises(CodecError, match="int32"):
        from_ring(np.zeros(3, np.int32), 32)
