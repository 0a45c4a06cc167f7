from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import norm as sparse_norm

from fondaco.client.content import (
    RECENCY_FLOOR,
    content_vectors,
    leading_factor,
    profile_scores,
    recency_weights,
)
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.features import characters_block, labels_block, words_block
from fondaco.shared.vocabulary import Vocabulary


def catalogue(texts, categories=None):
    return Catalogue(
        items=Vocabulary(tuple(f"i{num:04d}" for num in range(len(texts)))),
        texts=tuple(texts),
        categories=tuple(categories or [""] * len(texts)),
        brands=("",) * len(texts),
        prices=np.full(len(texts), np.nan),
    )


def _words(n_items, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{num}" for num in rng.integers(300, size=5)) for _ in range(n_items)]


def test_vectors_average_the_cosines_of_words_characters_and_labels():
    shop = catalogue(["red lamp", "blue lamp", "red rug", "oak", "rug"], categories=list("aabab"))
    vectors = content_vectors(shop)
    blocks = [
        words_block(shop.texts, pairs=True),
        characters_block(shop.texts),
        labels_block(("category a", "category a", "category b", "category a", "category b")),
    ]
    expected = sum((block @ block.T).toarray() for block in blocks) / 3
    np.testing.assert_allclose((vectors @ vectors.T).toarray(), expected, atol=1e-6)  # float32


def test_every_public_fact_tells_items_apart():
    same = catalogue(["lamp"] * 3)
    for column, values in {
        "categories": ("a", "a", "b"),
        "brands": ("a", "a", "b"),
        "prices": np.array([5.0, 5.0, 90.0]),
        "years": np.array([1999.0, 1999.0, 2020.0]),
    }.items():
        vectors = content_vectors(replace(same, **{column: values}))
        alike = (vectors @ vectors.T).toarray()
        assert alike[0, 1] == pytest.approx(1.0)
        assert alike[0, 2] < 0.9


def test_close_years_are_more_alike_than_far_ones():
    vectors = content_vectors(
        replace(catalogue([""] * 3), years=np.array([1990.0, 1991.0, 2020.0]))
    )
    near, far = (vectors @ vectors.T).toarray()[0, 1:]
    assert near > far


@pytest.mark.parametrize("n_items", [1, 5, 400])
def test_vectors_have_norm_one_or_zero(n_items):
    texts = [*_words(n_items), ""]
    norms = sparse_norm(content_vectors(catalogue(texts)), axis=1)
    np.testing.assert_allclose(norms, [1.0] * n_items + [0.0], atol=1e-5)


def test_equal_catalogues_have_equal_vectors():
    first, again = (content_vectors.__wrapped__(catalogue(_words(400))) for _ in "ab")
    assert (first != again).nnz == 0


def test_a_catalogue_without_facts_scores_nothing():
    vectors = content_vectors(catalogue(["", ""]))
    assert (vectors.shape[0], vectors.nnz) == (2, 0)
    history = csr_matrix(np.eye(2))
    assert profile_scores(history, vectors).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_items_like_the_history_score_best():
    vectors = content_vectors(catalogue(["red lamp", "blue lamp", "garden hose"]))
    known = csr_matrix(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    warm, cold = profile_scores(known, vectors)
    assert warm[1] > warm[2]
    assert not cold.any()


@pytest.mark.parametrize("shape", [(300, 400), (40, 400), (400, 40)])
def test_leading_factor_is_the_best_of_its_rank(shape):
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(shape[0], 3)) @ rng.normal(size=(3, shape[1]))
    noisy = csr_matrix(dense + 1e-3 * rng.normal(size=shape))
    factor = leading_factor(noisy, 30)
    found = np.linalg.eigvalsh(factor @ factor.T)[-3:]
    np.testing.assert_allclose(found, np.linalg.eigvalsh(dense @ dense.T)[-3:], rtol=1e-3)
    assert len(factor) == shape[0]


def test_recency_halves_towards_its_floor():
    ages = csr_matrix(np.array([[1.0, 11.0, 0.0, 1e9]]))  # age + 1: now, 10 days, absent, long ago
    weights = recency_weights(ages, 10.0).toarray()[0]
    half = RECENCY_FLOOR + (1 - RECENCY_FLOOR) / 2
    np.testing.assert_allclose(weights, [1.0, half, 0.0, RECENCY_FLOOR])
    assert ages.data.tolist() == [1.0, 11.0, 1e9]
