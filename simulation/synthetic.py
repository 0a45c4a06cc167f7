"""A marketplace with a known truth: who likes what is drawn first, then the rows.

A customer is a mixture of topics, a topic a distribution over items. An item's pull in a
topic follows from its Zipf popularity and from its factors, and those from its category,
attributes and brand, which its text names: so content tells something, and the best
possible ranking is known.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError
from fondaco.shared.vocabulary import Vocabulary

from .marketplace import LoadRequest, Marketplace

START = 19_723.0
"""2024-01-01 [days since 1970-01-01]."""
YEAR = 365.0
"""Length of the period [days]."""
SYLLABLES = ("ba", "do", "fi", "ga", "ke", "lu", "mo", "na", "po", "ri", "se", "tu", "va", "zo")


@dataclass(frozen=True, kw_only=True)
class SyntheticSpec:
    """Size and shape of the marketplace."""

    n_users: int
    n_items: int
    n_silos: int
    overlap: float = 1.0
    """Share of the catalogue that every silo sells; each other item has one seller [0 to 1]."""
    mean_rows: float = 30.0
    """Rows of a customer on average; log-normal, 2 to 500."""
    n_topics: int = 32
    dim: int = 16
    """Size of the item factors."""
    zipf_items: float = 0.6
    """Item popularity falls as rank to the power of minus this [1]."""
    zipf_silos: float = 1.0
    """Customers of a silo, likewise [1]."""
    taste: float = 3.0
    """Standard deviation of an item's log pull over topics; 0 leaves popularity alone."""
    late_items: float = 0.2
    """Share of items launched during the year, the others before it."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.overlap <= 1.0:
            raise ConfigError(f"dataset.overlap {self.overlap} must be between 0 and 1")
        if not 1 <= self.n_silos <= self.n_users:
            raise ConfigError(
                f"synthetic: {self.n_silos} silos need at least as many customers; "
                f"there are {self.n_users}"
            )
        if self.n_items < 1 or (self.n_shared == 0 and self.n_items < self.n_silos):
            raise ConfigError(
                f"synthetic: {self.n_items} items leave one of {self.n_silos} silos without any"
            )

    @property
    def n_shared(self) -> int:
        """Number of items that every silo sells; they come first."""
        return round(self.overlap * self.n_items)


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What the rows were drawn from.

    Attributes:
        user_topics: (n_users, n_topics) shares of a customer's rows [probability].
        topic_items: (n_topics, n_items) pull of an item in a topic [probability].
        user_silos: (n_users,) number of the customer's silo.
        own_items: (n_silos + 1,) silo s alone sells items own_items[s] to own_items[s + 1].
        item_factors: (n_items, dim) behind `topic_items` and the texts.
        launch: (n_items,) [days from `START`].
        growth: (n_items,) above 1 sells more and more, below 1 less and less [1].
    """

    user_topics: NDArray[np.float64]
    topic_items: NDArray[np.float64]
    user_silos: NDArray[np.int64]
    own_items: NDArray[np.int64]
    item_factors: NDArray[np.float64]
    launch: NDArray[np.float64]
    growth: NDArray[np.float64]
    _sums: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sums = np.zeros((len(self.topic_items), self.topic_items.shape[1] + 1))
        np.cumsum(self.topic_items, axis=1, out=sums[:, 1:])
        object.__setattr__(self, "_sums", sums)

    def mass(self) -> NDArray[np.float64]:
        """Return (n_topics, n_silos) share of a topic that a silo sells [probability]."""
        shared = self._sums[:, self.own_items[:1]]
        own = self._sums[:, self.own_items]
        return np.asarray(shared + np.diff(own, axis=1))

    def probabilities(self, user_nums: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (n, n_items) chance that a row of each customer is of each item [probability]."""
        silos = self.user_silos[user_nums]
        weights = self.user_topics[user_nums] / self.mass()[:, silos].T
        chances = weights @ self.topic_items
        items = np.arange(self.topic_items.shape[1])
        low, high = self.own_items[silos, None], self.own_items[silos + 1, None]
        sold = (items < self.own_items[0]) | ((items >= low) & (items < high))
        return np.asarray(np.where(sold, chances, 0.0))

    def rates(self, day: float) -> NDArray[np.float64]:
        """Return (n_items,) how fast each item sells on `day` against its year's mean [1].

        Args:
            day: [days since 1970-01-01].
        """
        span = YEAR - self.launch
        age = np.clip((day - START - self.launch) / span, 0.0, 1.0)
        with np.errstate(divide="ignore"):
            rate = self.growth / span * YEAR * age ** (self.growth - 1.0)
        return np.where(age > 0, rate, 0.0)


def load_synthetic(request: LoadRequest) -> Marketplace:
    """Return the synthetic marketplace of a scenario, its truth dropped."""
    config = request.config
    spec = SyntheticSpec(
        n_users=config.n_users,
        n_items=config.n_items,
        n_silos=request.n_merchants,
        overlap=config.overlap,
    )
    return make_marketplace(spec, request.seed)[0]


def make_marketplace(spec: SyntheticSpec, seed: int) -> tuple[Marketplace, Truth]:
    """Return a marketplace and what it was drawn from; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    catalogue, factors = _draw_items(spec, rng)
    truth = _draw_truth(spec, factors, rng)
    users, items, times = _draw_rows(spec, truth, rng)
    silo_codes = truth.user_silos[users]
    rows = pd.DataFrame(
        {
            "user_id": _coded(users, _names("customer", spec.n_users)),
            "item_id": _coded(items, list(catalogue.items.ids)),
            "time": times,
            "silo_id": _coded(silo_codes, _names("merchant", spec.n_silos)),
        }
    )
    note = f"drawn from seed {seed}: {spec.n_topics} topics, Zipf items and silos"
    market = Marketplace(
        name="synthetic",
        catalogue=catalogue,
        interactions=rows,
        has_clock=True,
        notes=(note,),
        sold_by=_sold_by(spec, truth) if spec.overlap < 1.0 else None,
    )
    return market, truth


def _sold_by(spec: SyntheticSpec, truth: Truth) -> dict[str, NDArray[np.int64]]:
    """Return merchant -> what it sells: the shared items and its own."""
    shared = np.arange(spec.n_shared)
    return {
        name: np.concatenate([shared, np.arange(*truth.own_items[num : num + 2])])
        for num, name in enumerate(_names("merchant", spec.n_silos))
    }


def zipf_sizes(total: int, n_parts: int, exponent: float) -> NDArray[np.int64]:
    """Return (n_parts,) sizes of at least 1 that sum to `total` >= n_parts, largest first."""
    shares = np.arange(1, n_parts + 1, dtype=np.float64) ** -exponent
    sizes = 1 + np.floor(shares / shares.sum() * (total - n_parts)).astype(np.int64)
    sizes[: total - int(sizes.sum())] += 1
    return np.asarray(sizes)


def _draw_items(
    spec: SyntheticSpec, rng: np.random.Generator
) -> tuple[Catalogue, NDArray[np.float64]]:
    """Return the public catalogue and the (n_items, dim) factors behind it."""
    n, dim = spec.n_items, spec.dim
    n_categories = int(np.clip(n // 20, 2, 200))
    n_brands = int(np.clip(n // 50, 2, 400))
    n_attributes = 60
    words = _words(n_categories + n_brands + n_attributes, rng)
    category_words = words[:n_categories]
    brand_words = words[n_categories : n_categories + n_brands]
    attribute_words = words[n_categories + n_brands :]
    category, brand = rng.integers(n_categories, size=n), rng.integers(n_brands, size=n)
    first, second = rng.integers(n_attributes, size=(2, n))
    attributes = rng.normal(size=(n_attributes, dim))
    factors = (
        np.sqrt(0.5) * rng.normal(size=(n_categories, dim))[category]
        + np.sqrt(0.15) * (attributes[first] + attributes[second])
        + np.sqrt(0.1) * rng.normal(size=(n_brands, dim))[brand]
        + np.sqrt(0.1) * rng.normal(size=(n, dim))
    )
    level = rng.normal(2.5, 0.8, size=n_categories)[category]
    level += rng.normal(0.0, 0.3, size=n_brands)[brand]
    catalogue = Catalogue(
        items=Vocabulary(tuple(_names("item", n))),
        texts=tuple(
            f"{brand_words[b]} {category_words[c]} {attribute_words[x]} {attribute_words[y]}"
            for b, c, x, y in zip(brand, category, first, second, strict=True)
        ),
        categories=tuple(category_words[c] for c in category),
        brands=tuple(brand_words[b] for b in brand),
        prices=np.asarray(np.round(np.exp(level), 2), dtype=np.float64),
    )
    return catalogue, factors


def _draw_truth(
    spec: SyntheticSpec, factors: NDArray[np.float64], rng: np.random.Generator
) -> Truth:
    """Return topics of customers (leaning to those of their silo) and items of topics."""
    topics = rng.normal(size=(spec.n_topics, spec.dim))
    pull = spec.taste / np.sqrt(spec.dim) * (topics @ factors.T)
    pull -= spec.zipf_items * np.log1p(rng.permutation(spec.n_items))
    topic_items = np.exp(pull - pull.max(axis=1, keepdims=True))
    topic_items /= topic_items.sum(axis=1, keepdims=True)
    sizes = zipf_sizes(spec.n_users, spec.n_silos, spec.zipf_silos)
    user_silos = np.repeat(np.arange(spec.n_silos), sizes)
    silo_topics = rng.dirichlet(np.ones(spec.n_topics), size=spec.n_silos)
    likely = 3.0 * (0.5 / spec.n_topics + 0.5 * silo_topics)
    user_topics = rng.standard_gamma(likely[user_silos])
    user_topics /= user_topics.sum(axis=1, keepdims=True)
    late = rng.random(spec.n_items) < spec.late_items
    return Truth(
        user_topics=user_topics,
        topic_items=topic_items,
        user_silos=user_silos,
        own_items=np.linspace(spec.n_shared, spec.n_items, spec.n_silos + 1).astype(np.int64),
        item_factors=factors,
        launch=np.where(late, rng.uniform(0.0, 0.9 * YEAR, spec.n_items), 0.0),
        growth=rng.uniform(0.7, 2.0, spec.n_items),
    )


def _draw_rows(
    spec: SyntheticSpec, truth: Truth, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return (n_rows,) customer numbers, item numbers and times, in order of time."""
    wanted = rng.lognormal(np.log(spec.mean_rows) - 0.32, 0.8, spec.n_users)
    counts = rng.multinomial(np.clip(wanted, 2, 500).astype(np.int64), truth.user_topics)
    user_parts, item_parts = [], []
    mass = truth.mass()
    for topic in range(spec.n_topics):
        users = np.repeat(np.arange(spec.n_users), counts[:, topic])
        draws = rng.random(len(users)) * mass[topic, truth.user_silos[users]]
        user_parts.append(users)
        item_parts.append(_items_at(truth, topic, truth.user_silos[users], draws))
    users, items = np.concatenate(user_parts), np.concatenate(item_parts)
    ages = rng.random(len(users)) ** (1.0 / truth.growth[items])
    times = START + truth.launch[items] + (YEAR - truth.launch[items]) * ages
    order = np.argsort(times)
    return users[order], items[order], times[order]


def _items_at(
    truth: Truth, topic: int, silos: NDArray[np.int64], draws: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return (n,) items where the topic's cumulative mass within each silo reaches `draws`."""
    sums = truth._sums[topic]
    n_shared = int(truth.own_items[0])
    low, high = truth.own_items[silos], truth.own_items[silos + 1]
    shared = (draws < sums[n_shared]) | (low == high)
    heights = np.where(shared, draws, draws - sums[n_shared] + sums[low])
    found = np.searchsorted(sums, heights, side="right") - 1
    return np.where(
        shared, np.minimum(found, n_shared - 1), np.clip(found, low, np.maximum(high - 1, low))
    )


def _names(kind: str, count: int) -> list[str]:
    width = len(str(count - 1))
    return [f"{kind}-{num:0{width}d}" for num in range(count)]


def _words(count: int, rng: np.random.Generator) -> list[str]:
    """Return `count` distinct made-up words."""
    numbers = rng.permutation(len(SYLLABLES) ** 4)[:count]
    base = len(SYLLABLES)
    return ["".join(SYLLABLES[num // base**at % base] for at in range(4)) for num in numbers]


def _coded(codes: NDArray[np.int64], names: list[str]) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=object))
