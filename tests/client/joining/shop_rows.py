"""A shop of two tastes, odd and even items, and everybody's model of them."""

from dataclasses import replace

import numpy as np
from builders import taste_silo, taste_values

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.vocabulary import Vocabulary


def with_one_more(catalogue):
    """Return the catalogue with an item put in at its start, so that all others move."""
    return Catalogue(
        items=Vocabulary(("a new item", *catalogue.items.ids)),
        texts=("new", *catalogue.texts),
        categories=("", *catalogue.categories),
        brands=("", *catalogue.brands),
        prices=np.array([1.0, *catalogue.prices]),
    )


def shop_rows():
    """Customers who took four items, then two, then two; the last took one, in the test part."""
    silo = taste_silo(lambda rng: 100.0 + np.arange(4))
    return replace(silo, interim=silo.valid.targets)


def model_values():
    """Fields of everybody's model of odd and even items."""
    return taste_values(1)
