"""One function per real data set: its files -> a `Marketplace`.

A catalogue comes from the public product list alone, never from what sold; where a data
set has no such list, the assumption made instead is one of the marketplace's notes.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fondaco.client.dataset import index_items
from fondaco.client.sources import read_interactions, read_items
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError
from fondaco.shared.schema import InteractionColumns
from fondaco.shared.vocabulary import Vocabulary

from .marketplace import LoadRequest, Marketplace, build_marketplace

DAY = np.timedelta64(1, "D")
MERCHANT_ZIPF = 0.5
"""Households per merchant of Complete Journey cut by makers fall as rank to minus this [1]."""


def load_complete_journey(request: LoadRequest) -> Marketplace:
    """Return one year of 2,469 households' grocery lines; items are product types or products.

    With `item = "line"` an item is a maker's products of one type, and merchants sell the lines
    of some makers each: catalogues without overlap.
    """
    products = pd.read_parquet(request.files["products.parquet"])
    lines = pd.read_parquet(
        request.files["transactions.parquet"],
        columns=["household_id", "store_id", "product_id", "transaction_timestamp"],
    )
    lines["product_id"] = lines["product_id"].astype(str)
    products["product_id"] = products["product_id"].astype(str)
    notes = [
        "prices are left unknown: the data have them on sold lines only",
        "a household shops at several stores; with all its lines it belongs to its main store",
    ]
    if request.config.item == "line":
        return _by_maker(products, lines, request.n_merchants)
    if request.config.item == "type":
        catalogue = _product_types(products)
        items = lines["product_id"].map(products.set_index("product_id")["product_type"])
        notes.append("lines of products without a type in the public product list are left out")
    else:
        catalogue = _products(products)
        items = lines["product_id"].where(lines["product_id"].isin(products["product_id"]))
        notes.append("lines of products missing from the public product list are left out")
    kept = items.notna()
    lines = lines[kept]
    return build_marketplace(
        name="complete-journey",
        catalogue=catalogue,
        users=lines["household_id"],
        items=items[kept],
        times=_days(lines["transaction_timestamp"]),
        silos=lines["store_id"],
        has_clock=True,
        notes=notes,
    )


def _product_types(products: pd.DataFrame) -> Catalogue:
    """Return the types, each with the facts that most of its products share."""
    known = products[products["product_type"].notna()]
    facts = pd.DataFrame(
        {
            name: _most_frequent(known, "product_type", name)
            for name in ("product_category", "department", "brand")
        }
    ).fillna("")
    return Catalogue(
        items=Vocabulary(tuple(facts.index)),
        texts=tuple(facts.index + " " + facts["product_category"] + " " + facts["department"]),
        categories=tuple(facts["product_category"] + "|" + facts["department"]),
        brands=tuple(facts["brand"]),
        prices=np.full(len(facts), np.nan),
    )


def _products(products: pd.DataFrame) -> Catalogue:
    facts = products.astype({"manufacturer_id": str}).fillna("")
    texts = facts["product_type"]
    for word in ("product_category", "department", "package_size", "brand"):
        texts = texts + " " + facts[word]
    return Catalogue(
        items=Vocabulary(tuple(facts["product_id"])),
        texts=tuple(texts.str.replace(r" +", " ", regex=True).str.strip()),
        categories=tuple(
            facts["product_type"] + "|" + facts["product_category"] + "|" + facts["department"]
        ),
        brands=tuple("manufacturer " + facts["manufacturer_id"]),
        prices=np.full(len(facts), np.nan),
    )


def _by_maker(products: pd.DataFrame, lines: pd.DataFrame, n_merchants: int) -> Marketplace:
    """Return merchants with catalogues of their own: each sells what some makers make.

    Everything but the rows follows from the public product list: a line is a product type of one
    maker; makers go, most lines first, to the merchant with fewest lines so far; and a household
    is a customer of one merchant, by a hash of its id, so that no customer is at two silos.
    """
    known = products[products["product_type"].notna()].astype({"manufacturer_id": str})
    known = known.assign(line=known["product_type"] + " @ " + known["manufacturer_id"])
    names = ("product_type", "product_category", "department", "brand", "manufacturer_id")
    facts = pd.DataFrame({name: _most_frequent(known, "line", name) for name in names}).fillna("")
    catalogue = Catalogue(
        items=Vocabulary(tuple(facts.index)),
        texts=tuple(
            facts["product_type"] + " " + facts["product_category"] + " " + facts["department"]
        ),
        categories=tuple(
            facts["product_type"] + "|" + facts["product_category"] + "|" + facts["department"]
        ),
        brands=tuple(facts["brand"]),
        prices=np.full(len(facts), np.nan),
    )
    _, makers = np.unique(facts["manufacturer_id"], return_inverse=True)
    merchants = _fill_evenly(np.bincount(makers), n_merchants)[makers]
    items = lines["product_id"].map(known.set_index("product_id")["line"])
    lines, items = lines[items.notna()], items[items.notna()]
    at = merchants[catalogue.items.nums(items.tolist())]
    homes = _homes(lines["household_id"], np.bincount(merchants, minlength=n_merchants))
    home = at == homes
    silos = np.array([f"merchant-{num:02d}" for num in range(n_merchants)])
    return build_marketplace(
        name="complete-journey",
        catalogue=catalogue,
        users=lines["household_id"][home],
        items=items[home],
        times=_days(lines["transaction_timestamp"][home]),
        silos=pd.Series(silos[at[home]]),
        has_clock=True,
        notes=[
            "prices are left unknown: the data have them on sold lines only",
            "an item is a maker's products of one type, and a merchant sells the lines of some "
            "makers: a cut of one grocer's rows that no trader made",
            "a household is a customer of one merchant, drawn by a hash of its id; what it took "
            "of other makers is left out",
        ],
        sold_by={str(name): np.flatnonzero(merchants == num) for num, name in enumerate(silos)},
    )


def _fill_evenly(sizes: NDArray[np.int64], n_bins: int) -> NDArray[np.int64]:
    """Return (n_groups,) bins: the largest group first, each to the bin that holds least."""
    filled = np.zeros(n_bins, dtype=np.int64)
    bins = np.empty(len(sizes), dtype=np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        bins[group] = int(np.argmin(filled))
        filled[bins[group]] += sizes[group]
    return bins


def _homes(households: pd.Series, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n_rows,) the merchant of each row's household; larger catalogues draw more."""
    shares = np.arange(1, len(sizes) + 1, dtype=np.float64) ** -MERCHANT_ZIPF
    ends = np.cumsum(shares / shares.sum())
    order = np.argsort(-sizes, kind="stable")
    codes, names = pd.factorize(households.astype(str))
    digests = [hashlib.sha256(f"merchant {name}".encode()).digest()[:8] for name in names]
    drawn = np.array([int.from_bytes(digest, "big") / 2**64 for digest in digests])
    places = np.minimum(np.searchsorted(ends, drawn, side="right"), len(sizes) - 1)
    return np.asarray(order[places][codes], dtype=np.int64)


def _most_frequent(frame: pd.DataFrame, key: str, column: str) -> pd.Series:
    """Return key -> the value of `column` with most rows, the smallest text among equals."""
    counts = frame.groupby([key, column]).size().rename("n").reset_index()
    counts = counts.sort_values([key, "n", column], ascending=[True, False, True])
    return counts.drop_duplicates(key).set_index(key)[column]


def load_online_retail(request: LoadRequest) -> Marketplace:
    """Return two years of a gift shop's order lines by known customers."""
    lines = pd.read_parquet(
        request.files["online_retail_ii.parquet"],
        columns=[
            *("stock_code", "description", "quantity", "invoice_date", "price"),
            *("customer_id", "country"),
        ],
    )
    lines = lines[lines["stock_code"].notna()]
    lines["stock_code"] = lines["stock_code"].astype(object)
    codes = sorted(lines["stock_code"].unique())
    prices = lines.loc[lines["price"] > 0, ["stock_code", "price"]].drop_duplicates()
    catalogue = Catalogue(
        items=Vocabulary(tuple(codes)),
        texts=tuple(_descriptions(lines).reindex(codes, fill_value="")),
        categories=tuple("".join(filter(str.isdigit, code)) or code for code in codes),
        brands=("",) * len(codes),
        prices=prices.groupby("stock_code")["price"].median().reindex(codes).to_numpy(np.float64),
    )
    bought = lines[(lines["quantity"] > 0) & (lines["price"] > 0) & lines["customer_id"].notna()]
    return build_marketplace(
        name="online-retail-ii",
        catalogue=catalogue,
        users=bought["customer_id"],
        items=bought["stock_code"],
        times=_days(bought["invoice_date"]),
        silos=bought["country"].astype(object),
        has_clock=True,
        notes=[
            "the file has no product list: all its stock codes, descriptions and unit prices "
            "are declared public",
            "a code's text is its longest description in capitals and its price the median of "
            "its distinct prices, so that neither depends on how often it sold",
            "codes such as POST (postage) or M (manual) stay in the catalogue",
        ],
    )


def _descriptions(lines: pd.DataFrame) -> pd.Series:
    """Return code -> text: capitals first (staff remarks are lower case), then the longest."""
    texts = lines.loc[lines["description"].notna(), ["stock_code", "description"]]
    texts = texts.drop_duplicates().assign(
        text=lambda t: t["description"].str.split().str.join(" "),
        remark=lambda t: t["text"].str.upper() != t["text"],
        shortness=lambda t: -t["text"].str.len(),
    )
    texts = texts.sort_values(["stock_code", "remark", "shortness", "text"])
    return texts.drop_duplicates("stock_code").set_index("stock_code")["text"]


def load_movielens_1m(request: LoadRequest) -> Marketplace:
    """Return the ratings of at least `config.min_rating` by 6,040 customers."""
    films = pd.read_parquet(request.files["movies.parquet"]).sort_values("item")
    ratings = pd.read_parquet(
        request.files["ratings.parquet"], columns=["user_id", "item", "rating", "sas_rank"]
    )
    ratings = ratings[ratings["rating"] >= request.config.min_rating]
    people = pd.read_parquet(request.files["users.parquet"]).set_index("user_id")["zipcode"]
    year = films["title"].str.extract(r"\((\d{4})\)\s*$")[0]
    return build_marketplace(
        name="movielens-1m",
        catalogue=_films(films["item"], films["title"], films["genres"], year),
        users=ratings["user_id"],
        items=ratings["item"],
        times=ratings["sas_rank"].fillna(-1).to_numpy(dtype=np.float64),
        silos=ratings["user_id"].map(_zip_region(people)),
        notes=[
            "a row is a rating, and a silo a first zip digit",
            "time is the known order of a customer's ratings; rarely rated films come first",
        ],
    )


def load_movielens_100k(request: LoadRequest) -> Marketplace:
    """Return the ratings of at least `config.min_rating` by 943 customers."""
    films = _atomic(request.files["ml-100k.item"])
    ratings = _atomic(request.files["ml-100k.inter"])
    ratings = ratings[ratings["rating"].astype(float) >= request.config.min_rating]
    people = _atomic(request.files["ml-100k.user"]).set_index("user_id")["zip_code"]
    genres = films["class"].str.replace(" ", "|")
    return build_marketplace(
        name="movielens-100k",
        catalogue=_films(films["item_id"], films["movie_title"], genres, films["release_year"]),
        users=ratings["user_id"],
        items=ratings["item_id"],
        times=ratings["timestamp"].astype(np.float64).to_numpy() / 86_400,
        silos=ratings["user_id"].map(_zip_region(people)),
        has_clock=True,
        notes=["a row is a rating, and a silo a first zip digit (one silo for foreign codes)"],
    )


def _atomic(path: Path) -> pd.DataFrame:
    """Return a tab-separated table of text whose header says `name:kind`."""
    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=3)
    return frame.rename(columns=lambda name: name.split(":")[0])


def _films(items: pd.Series, titles: pd.Series, genres: pd.Series, year: pd.Series) -> Catalogue:
    """Return films; the categories are their genres."""
    return Catalogue(
        items=Vocabulary(tuple(items.astype(str))),
        texts=tuple(titles.str.replace(r"\s*\(\d{4}\)\s*$", "", regex=True)),
        categories=tuple(genres.fillna("")),
        brands=("",) * len(items),
        prices=np.full(len(items), np.nan),
        years=pd.to_numeric(year, errors="coerce").to_numpy(dtype=np.float64),
    )


def _zip_region(zipcodes: pd.Series) -> pd.Series:
    first = zipcodes.astype(str).str[0]
    return ("zip-" + first).where(first.str.isdigit(), "zip-other")


def load_gowalla(request: LoadRequest) -> Marketplace:
    """Return 1,027,370 check-in pairs of 29,858 customers, without text and time."""
    pairs = pd.read_parquet(request.files["interactions.parquet"], columns=["user", "item"])
    n_items = int(pairs["item"].max()) + 1
    catalogue = Catalogue(
        items=Vocabulary(tuple(str(num) for num in range(n_items))),
        texts=("",) * n_items,
        categories=("",) * n_items,
        brands=("",) * n_items,
        prices=np.full(n_items, np.nan),
    )
    order = np.random.default_rng(request.seed).permutation(len(pairs)).astype(np.float64)
    return build_marketplace(
        name="gowalla",
        catalogue=catalogue,
        users=pairs["user"],
        items=pairs["item"],
        times=order,
        notes=[
            "train, validation and test pairs of the LightGCN split are pooled and split anew, "
            "so figures do not compare with published ones",
            "without times, the order of a customer's rows is drawn from the seed",
        ],
    )


def load_files(request: LoadRequest) -> Marketplace:
    """Return the caller's own tables.

    Raises:
        ConfigError: a table is not named.
        DataError: a file, column or row that cannot be read.
    """
    config = request.config
    if not (config.interactions and config.items):
        raise ConfigError("dataset.interactions and dataset.items must name a file each")
    catalogue = index_items(read_items(config.items))
    columns = InteractionColumns(silo_id=config.silo_column or "silo_id")
    frame = read_interactions(config.interactions, columns, items=catalogue.items)
    if "rating" in frame:
        frame = frame[frame["rating"] >= config.min_rating]
    order = np.arange(len(frame), dtype=np.float64)
    return build_marketplace(
        name="files",
        catalogue=catalogue,
        users=frame["user_id"],
        items=frame["item_id"],
        times=frame["time"].to_numpy() if "time" in frame else order,
        silos=frame.get("silo_id"),
        has_clock=bool(frame.attrs["has_clock"]),
        notes=["the item table is taken as public and complete"],
    )


def _days(stamps: pd.Series) -> NDArray[np.float64]:
    """Return (n,) days since 1970-01-01."""
    return (stamps.to_numpy() - np.datetime64("1970-01-01")) / DAY
