from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fondaco.shared.catalogue import Catalogue, ids_only
from fondaco.shared.content_space import DIM, content_space
from fondaco.shared.hashing import mix64
from fondaco.shared.vocabulary import Vocabulary


def catalogue(n_items=40):
    kinds = ["red wool hat", "red wool scarf", "steel pan", "steel pot"]
    return Catalogue(
        items=Vocabulary(tuple(f"i{num:03d}" for num in range(n_items))),
        texts=tuple(f"{kinds[num % 4]} number{num}" for num in range(n_items)),
        categories=tuple(("clothes", "kitchen")[num % 4 // 2] for num in range(n_items)),
        brands=tuple(f"b{num % 3}" for num in range(n_items)),
        prices=np.linspace(1, 50, n_items),
    )


@pytest.mark.parametrize("n_items", [1, 2, 40, 400])
def test_vectors_have_one_length_whatever_the_catalogue(n_items):
    vectors = content_space(catalogue(n_items))
    assert vectors.shape == (n_items, DIM)
    assert vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths < 1e-5))


def test_equal_catalogues_give_equal_vectors():
    np.testing.assert_array_equal(content_space(catalogue()), content_space(catalogue()))


def test_alike_items_lie_closer_than_unlike_ones():
    vectors = content_space(catalogue())
    alike = vectors @ vectors.T
    assert alike[0, 4] > alike[0, 1] > alike[0, 2]


def test_order_of_the_items_changes_no_likeness():
    one = catalogue()
    order = np.random.default_rng(0).permutation(len(one))
    other = replace(
        one,
        texts=tuple(one.texts[num] for num in order),
        categories=tuple(one.categories[num] for num in order),
        brands=tuple(one.brands[num] for num in order),
        prices=one.prices[order],
    )
    first, second = content_space(one), content_space(other)
    np.testing.assert_allclose(
        (first @ first.T)[np.ix_(order, order)], second @ second.T, atol=1e-4
    )


def test_items_without_facts_have_no_place():
    assert not content_space(ids_only(catalogue())).any()


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, min_size=2, max_size=50))
def test_hash_keeps_distinct_numbers_distinct(numbers):
    assert len(np.unique(mix64(np.array(numbers, dtype=np.uint64)))) == len(numbers)


def test_hash_is_the_published_one():
    """The first outputs of SplitMix64 seeded with 0."""
    gamma = 0x9E3779B97F4A7C15
    states = np.array([0, gamma, 2 * gamma % 2**64], dtype=np.uint64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mix64(states).tolist() == expected
