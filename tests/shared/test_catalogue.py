import numpy as np
import pytest

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import DataError
from fondaco.shared.vocabulary import Vocabulary


def catalogue(**changes):
    columns = {
        "items": Vocabulary(("a", "b")),
        "texts": ("Tee", "Käse"),
        "categories": ("drinks", ""),
        "brands": ("", ""),
        "prices": np.array([1.5, np.nan]),
    }
    return Catalogue(**(columns | changes))


def test_digest_changes_with_every_column():
    others = [
        catalogue(items=Vocabulary(("a", "c"))),
        catalogue(texts=("Tee", "Kase")),
        catalogue(categories=("drinks", "x")),
        catalogue(brands=("", "x")),
        catalogue(prices=np.array([1.5, 0.0])),
    ]
    assert len({c.digest for c in [catalogue(), *others]}) == 6
    assert catalogue().digest == catalogue().digest


def test_columns_of_different_length_are_refused():
    with pytest.raises(DataError, match="differ in length"):
        catalogue(texts=("only one",))
