"""The public item list: ids, text, category, brand, price, year. Never derived from what sold."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """Public facts about every item, in the order of `items`.

    Attributes:
        items: n_items ids.
        texts: (n_items,) free text, "" where unknown.
        categories: (n_items,) one category each, "" where unknown.
        brands: (n_items,) one brand each, "" where unknown.
        prices: (n_items,) list price in the catalogue's currency, NaN where unknown.
        years: (n_items,) year in which the item came out, NaN where unknown (all, if left out).
    """

    items: Vocabulary
    texts: tuple[str, ...]
    categories: tuple[str, ...]
    brands: tuple[str, ...]
    prices: NDArray[np.float64]
    years: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        if not len(self.years):
            object.__setattr__(self, "years", np.full(len(self.items), np.nan))
        lengths = {
            len(self.items),
            len(self.texts),
            len(self.categories),
            len(self.brands),
            len(self.prices),
            len(self.years),
        }
        if len(lengths) != 1:
            raise DataError(f"catalogue columns differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every column, as `sha256:...`: what the plan names."""
        numbers = [
            [None if np.isnan(number) else repr(float(number)) for number in column]
            for column in (self.prices, self.years)
        ]
        body = [self.items.digest, self.texts, self.categories, self.brands, *numbers]
        raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def ids_only(catalogue: Catalogue) -> Catalogue:
    """Return the same items without any fact about them."""
    blank = ("",) * len(catalogue)
    return Catalogue(
        items=catalogue.items,
        texts=blank,
        categories=blank,
        brands=blank,
        prices=np.full(len(catalogue), np.nan),
    )


def save_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write `catalogue` as JSON."""
    body = {
        "ids": catalogue.items.ids,
        "texts": catalogue.texts,
        "categories": catalogue.categories,
        "brands": catalogue.brands,
        "prices": [None if np.isnan(p) else float(p) for p in catalogue.prices],
        "years": [None if np.isnan(y) else float(y) for y in catalogue.years],
    }
    path.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")


def load_catalogue(path: Path, digest: str) -> Catalogue:
    """Return the catalogue written by `save_catalogue`.

    Raises:
        DataError: the file is missing, no catalogue, or not the one of `digest`.
    """
    catalogue = read_catalogue(path)
    if catalogue.digest != digest:
        raise DataError(f"{path} is another catalogue than the plan's {digest[:19]}")
    return catalogue


def read_catalogue(path: Path) -> Catalogue:
    """Return whatever catalogue `save_catalogue` wrote there.

    Raises:
        DataError: the file is missing or no catalogue.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        texts = [tuple(map(_text, body[name])) for name in ("texts", "categories", "brands")]
        return Catalogue(
            items=Vocabulary(tuple(map(_text, body["ids"]))),
            texts=texts[0],
            categories=texts[1],
            brands=texts[2],
            prices=_numbers(body["prices"]),
            years=_numbers(body["years"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a catalogue: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} must be text")
    return value


def _numbers(values: list[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
