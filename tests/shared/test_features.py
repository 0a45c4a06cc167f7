import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fondaco.shared import features
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.features import item_features, labels_block, words_block
from fondaco.shared.vocabulary import Vocabulary


def catalogue(texts, categories=None, brands=None, prices=None):
    n_items = len(texts)
    return Catalogue(
        items=Vocabulary(tuple(f"i{num}" for num in range(n_items))),
        texts=tuple(texts),
        categories=tuple(categories or [""] * n_items),
        brands=tuple(brands or [""] * n_items),
        prices=np.array(prices or [np.nan] * n_items, dtype=np.float64),
    )


def block_of(name, shop):
    features = item_features(shop)
    return features.blocks[features.names.index(name)]


def price_block(prices):
    return block_of("price", catalogue([""] * len(prices), prices=prices))


def norms(block):
    return np.sqrt(np.asarray(block.multiply(block).sum(axis=1)).ravel())


def cosine(block, first, second):
    return float((block[first] @ block[second].T).toarray()[0, 0])


def test_features_know_the_public_catalogue_and_nothing_else():
    assert list(inspect.signature(item_features.__wrapped__).parameters) == ["catalogue"]
    assert "client" not in inspect.getsource(features)


def test_equal_catalogues_give_equal_features():
    shop = {"texts": ["red lamp", "blue lamp"], "prices": [3.0, 4.0]}
    first, again = item_features(catalogue(**shop)), item_features(catalogue(**shop))
    for one, other in zip(first.blocks, again.blocks, strict=True):
        assert (one != other).nnz == 0


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.text(max_size=20), st.text(max_size=9)), min_size=1, max_size=8),
    st.lists(st.one_of(st.just(np.nan), st.floats(min_value=0, width=32)), min_size=8, max_size=8),
)
def test_rows_have_norm_one_or_zero(words, prices):
    texts, labels = zip(*words, strict=True)
    shop = catalogue(texts, labels, labels, prices[: len(words)])
    for block in item_features.__wrapped__(shop).blocks:
        found = norms(block)
        assert np.all((np.abs(found - 1) < 1e-9) | (found == 0))


def test_blocks_without_any_fact_are_left_out():
    assert item_features(catalogue(["", ""])).names == ()
    assert item_features(catalogue(["", "lamp"])).names == ("text",)
    full = catalogue(["lamp", "rug"], ["home", ""], ["", "acme"], [3.0, np.nan])
    assert {"text", "category", "brand", "price"} <= set(item_features(full).names)


def test_a_catalogue_without_facts_has_no_kernel():
    nothing = item_features(catalogue(["", "", ""]))
    assert nothing.kernels(np.arange(3), np.arange(3)) == []


@pytest.mark.parametrize(
    ("one", "other"), [("Käse", "käse alt"), ("红色 灯", "灯 大"), ("лампа", "Лампа 2")]
)
def test_words_of_any_script_are_words(one, other):
    block = words_block((one, other, "something else"))
    assert cosine(block, 0, 1) > 0.3
    assert cosine(block, 0, 2) == 0


def test_an_item_of_unknown_text_has_an_empty_row():
    assert norms(words_block(("", "lamp", " - "))).tolist() == [0.0, 1.0, 0.0]


def test_rare_words_weigh_more():
    block = words_block(("lamp red", "lamp", "red", "lamp blue", "lamp big"))
    assert cosine(block, 0, 2) > cosine(block, 0, 1) > 0


def test_labels_between_bars_are_whole():
    block = labels_block(("fresh fruit|sale", "fresh fruit", "fresh meat", ""))
    assert cosine(block, 0, 1) > 0
    assert cosine(block, 1, 2) == 0
    assert norms(block)[3] == 0


def test_prices_that_are_close_are_alike():
    block = price_block([1.0, 1.05, 30.0, np.nan, 0.0])
    assert norms(block) == pytest.approx([1.0, 1.0, 1.0, 0.0, 0.0])
    assert cosine(block, 0, 1) > 0.9
    assert cosine(block, 0, 2) < 0.1


def test_one_price_for_everything_tells_nothing_apart():
    block = price_block([9.99] * 4)
    assert (block @ block.T).toarray() == pytest.approx(np.ones((4, 4)))


def test_a_price_that_nobody_knows_makes_no_block():
    assert "price" not in item_features(catalogue(["lamp"], prices=[np.nan])).names


def test_kernels_are_cosines_of_the_asked_items():
    shop = item_features(catalogue(["red lamp", "lamp", "rug"], prices=[1.0, 2.0, np.nan]))
    text, price = shop.kernels(np.array([0, 2]), np.array([0, 1, 2]))
    assert text.shape == price.shape == (2, 3)
    assert text[0, 0] == pytest.approx(1.0)
    assert text[1] == pytest.approx([0, 0, 1])
    assert not price[1].any()
