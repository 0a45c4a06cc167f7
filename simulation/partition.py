"""One marketplace -> silos, each customer with all rows at one of them, rows split."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fondaco.client.dataset import Rows, SiloDataset, index_interactions
from fondaco.client.splits import draw_hidden, hold_out_customers, split_by_time, split_last_k
from fondaco.shared.errors import ConfigError

from .marketplace import Marketplace
from .scenario import DatasetConfig, SilosConfig

GROUP = "group"
"""Joined small silos are called group-0, group-1, ..."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Homes:
    """Where customers belong.

    Attributes:
        silo_ids: ascending; a silo may have no customer.
        user_silos: (n_users,) numbers of `silo_ids`.
        assortments: silo -> (n_items,) what it sells; silos that sell everything are left out.
    """

    silo_ids: tuple[str, ...]
    user_silos: NDArray[np.int64]
    assortments: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class _HeldOut:
    """Customers and rows held out over the whole marketplace, so that no cut changes them.

    Attributes:
        valid: (n_users,) validation customers.
        test: (n_users,) test customers.
        hidden: (n_rows,) their hidden rows.
    """

    valid: NDArray[np.bool_]
    test: NDArray[np.bool_]
    hidden: NDArray[np.bool_]


def partition(
    market: Marketplace, silos: SilosConfig, dataset: DatasetConfig, seed: int
) -> list[SiloDataset]:
    """Return every silo's dataset, by ascending silo id.

    Which customers are held out, and what is hidden of them, depends on the marketplace
    and the seed alone, never on the cut into silos.

    Args:
        market: all rows.
        silos: how to cut.
        dataset: how to split in time or by customers.
        seed: of the Dirichlet cut and of the held-out customers.

    Raises:
        ConfigError: the marketplace cannot be cut or split in this way.
    """
    user_ids, rows = index_interactions(market.interactions, market.catalogue.items)
    homes = assign_homes(market, user_ids, rows, silos, seed)
    held = _hold_out(rows, len(user_ids), dataset, seed)
    moments = _moments(market, dataset)
    row_silos = homes.user_silos[rows.user_nums]
    row_order = np.argsort(row_silos, kind="stable")
    user_order = np.argsort(homes.user_silos, kind="stable")
    numbers = np.arange(len(homes.silo_ids) + 1)
    row_cuts = np.searchsorted(row_silos[row_order], numbers)
    user_cuts = np.searchsorted(homes.user_silos[user_order], numbers)
    datasets = []
    for num, silo_id in enumerate(homes.silo_ids):
        users = user_order[user_cuts[num] : user_cuts[num + 1]]
        mine = row_order[row_cuts[num] : row_cuts[num + 1]]
        own = Rows(
            user_nums=np.searchsorted(users, rows.user_nums[mine]),
            item_nums=rows.item_nums[mine],
            times=rows.times[mine],
        )
        part = _Part(
            silo_id=silo_id,
            user_ids=user_ids[users],
            n_items=len(market.catalogue),
            rows=own,
            assortment=homes.assortments.get(silo_id),
        )
        here = held and _local(held, users, mine)
        datasets.append(_split(*_on_sale(part, here), dataset, moments))
    return _largest(datasets, silos.largest)


def _largest(datasets: list[SiloDataset], most: int) -> list[SiloDataset]:
    """Return the silos with the most customers, in the order they had; all if `most` is 0.

    Raises:
        ConfigError: there are fewer.
    """
    if most > len(datasets):
        raise ConfigError(f"silos.largest={most} but there are {len(datasets)} silos")
    kept = sorted(datasets, key=lambda silo: (-silo.n_users, silo.silo_id))[: most or None]
    names = {silo.silo_id for silo in kept}
    return [silo for silo in datasets if silo.silo_id in names]


def cut_of(market: Marketplace, silos: SilosConfig) -> str:
    """Return how the customers are cut: natural silos that are asked for by number are hashed.

    A marketplace that makes its merchants itself makes as many as it is asked for.
    """
    makes_merchants = market.name == "synthetic" or market.sold_by is not None
    if silos.partition == "natural" and silos.count and not makes_merchants:
        return "hash"
    return silos.partition


def partition_notes(market: Marketplace, silos: SilosConfig) -> tuple[str, ...]:
    """Return what a report must state about the cut, after the marketplace's own notes."""
    if cut_of(market, silos) == "hash":
        return (f"silos are {silos.count} even parts by a hash of the customer",)
    if silos.partition == "dirichlet":
        return (
            f"silos are {silos.count} parts skewed by taste "
            f"(Dirichlet, concentration {silos.concentration:g})",
        )
    notes = []
    if silos.min_users > 1:
        notes.append(
            f"natural silos with fewer than {silos.min_users} customers are joined by a hash "
            "of the silo id: a convenience of the simulation"
        )
    if silos.largest:
        notes.append(f"only the {silos.largest} silos with the most customers take part")
    return tuple(notes)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """One silo before the split."""

    silo_id: str
    user_ids: NDArray[np.str_]
    n_items: int
    rows: Rows
    assortment: NDArray[np.bool_] | None


def _on_sale(part: _Part, held: _HeldOut | None) -> tuple[_Part, _HeldOut | None]:
    """Leave out rows of items that the customer's home does not sell: they were taken elsewhere."""
    if part.assortment is None:
        return part, held
    sold = part.assortment[part.rows.item_nums]
    here = held and replace(held, hidden=held.hidden[sold])
    return replace(part, rows=part.rows.take(sold)), here


def _split(
    part: _Part, held: _HeldOut | None, dataset: DatasetConfig, moments: tuple[float, float]
) -> SiloDataset:
    if held is not None:
        return hold_out_customers(
            part.rows,
            silo_id=part.silo_id,
            user_ids=part.user_ids,
            n_items=part.n_items,
            valid_users=np.flatnonzero(held.valid),
            test_users=np.flatnonzero(held.test),
            hidden=held.hidden,
            assortment=part.assortment,
        )
    if dataset.protocol == "last-k":
        return split_last_k(
            part.rows,
            silo_id=part.silo_id,
            user_ids=part.user_ids,
            n_items=part.n_items,
            k=dataset.last_k,
            keep_repeats=dataset.keep_repeats,
            assortment=part.assortment,
        )
    return split_by_time(
        part.rows,
        silo_id=part.silo_id,
        user_ids=part.user_ids,
        n_items=part.n_items,
        valid_from=moments[0],
        test_from=moments[1],
        keep_repeats=dataset.keep_repeats,
        assortment=part.assortment,
    )


def _moments(market: Marketplace, dataset: DatasetConfig) -> tuple[float, float]:
    """Return valid_from and test_from [days since 1970-01-01]; unused unless split by time."""
    if dataset.protocol != "time":
        return 0.0, 0.0
    if not market.has_clock:
        raise ConfigError(
            f"{market.name} has no clock times; set dataset.protocol to 'last-k' or 'held-out'"
        )
    moments = []
    for name in ("valid_from", "test_from"):
        text = getattr(dataset, name)
        try:
            day = np.datetime64(text, "ns")
        except ValueError as error:
            raise ConfigError(f"dataset.{name} {text!r} is not an ISO date") from error
        if np.isnat(day):
            raise ConfigError(f"dataset.{name} is needed to split by time")
        moments.append(float((day - np.datetime64(0, "ns")) / np.timedelta64(1, "D")))
    return moments[0], moments[1]


def _hold_out(rows: Rows, n_users: int, dataset: DatasetConfig, seed: int) -> _HeldOut | None:
    """Return the first customers of a seeded permutation: validation, then test."""
    if dataset.protocol != "held-out":
        return None
    n_valid, n_test = dataset.valid_users, dataset.test_users
    if n_valid < 0 or n_test < 0 or n_valid + n_test >= n_users:
        raise ConfigError(
            f"dataset.valid_users {n_valid} and dataset.test_users {n_test} must leave "
            f"training customers; there are {n_users} customers"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_users)
    valid, test = order[:n_valid], order[n_valid : n_valid + n_test]
    hidden = draw_hidden(rows, order[: n_valid + n_test], rng)
    masks = np.zeros((2, n_users), dtype=np.bool_)
    masks[0, valid] = True
    masks[1, test] = True
    return _HeldOut(valid=masks[0], test=masks[1], hidden=hidden)


def _local(held: _HeldOut, users: NDArray[np.int64], rows: NDArray[np.int64]) -> _HeldOut:
    return _HeldOut(valid=held.valid[users], test=held.test[users], hidden=held.hidden[rows])


def assign_homes(
    market: Marketplace,
    user_ids: NDArray[np.str_],
    rows: Rows,
    silos: SilosConfig,
    seed: int,
) -> Homes:
    """Return the silo of every customer.

    Args:
        market: the data set.
        user_ids: (n_users,) from `index_interactions`.
        rows: (n_rows,) from `index_interactions`.
        silos: how to cut.
        seed: of the Dirichlet cut.

    Raises:
        ConfigError: no natural silos, or `silos.count` is missing.
    """
    if cut_of(market, silos) == "natural":
        return _natural(market, user_ids, silos)
    if silos.count < 1:
        raise ConfigError(f"silos.count {silos.count} must be at least 1 for {silos.partition!r}")
    width = len(str(silos.count - 1))
    silo_ids = tuple(f"silo-{num:0{width}d}" for num in range(silos.count))
    if cut_of(market, silos) == "hash":
        nums = np.array([_hash(user_id) % silos.count for user_id in user_ids.tolist()])
        return Homes(silo_ids=silo_ids, user_silos=nums.astype(np.int64))
    return Homes(silo_ids=silo_ids, user_silos=_dirichlet(market, len(user_ids), rows, silos, seed))


def _hash(text: str) -> int:
    """Return SHA-256 of the UTF-8 text as a number."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _natural(market: Marketplace, user_ids: NDArray[np.str_], silos: SilosConfig) -> Homes:
    if not market.has_silos:
        raise ConfigError(f"{market.name} has no natural silos; set silos.partition to 'hash'")
    frame = market.interactions
    names = np.array(frame["silo_id"].cat.categories.tolist(), dtype=object)
    by_user = _main_silos(frame, names)
    homes = [by_user[user_id] for user_id in user_ids.tolist()]
    joined = _join_small(Counter(homes), silos.min_users)
    homes = [joined.get(silo_id, silo_id) for silo_id in homes]
    listed = set(homes) | ({str(n) for n in names} - set(joined) if silos.count else set())
    silo_ids = tuple(sorted(listed))
    number = {silo_id: num for num, silo_id in enumerate(silo_ids)}
    return Homes(
        silo_ids=silo_ids,
        user_silos=np.array([number[h] for h in homes]),
        assortments=_assortments(market, silo_ids, joined),
    )


def _assortments(
    market: Marketplace, silo_ids: Sequence[str], joined: Mapping[str, str]
) -> dict[str, NDArray[np.bool_]]:
    """Return what each silo sells; a group sells whatever one of its members does."""
    if market.sold_by is None:
        return {}
    found = {silo_id: np.zeros(len(market.catalogue), dtype=np.bool_) for silo_id in silo_ids}
    for name, items in market.sold_by.items():
        silo_id = joined.get(name, name)
        if silo_id in found:
            found[silo_id][items] = True
    return found


def _main_silos(frame: pd.DataFrame, names: NDArray[np.object_]) -> dict[str, str]:
    """Return customer -> the silo with most rows, the smallest id among equals."""
    rank = np.argsort(np.argsort(names))
    users = frame["user_id"].cat.codes.to_numpy(dtype=np.int64)
    silos = rank[frame["silo_id"].cat.codes.to_numpy(dtype=np.int64)]
    pairs, counts = np.unique(users * len(names) + silos, return_counts=True)
    order = np.lexsort((pairs % len(names), -counts, pairs // len(names)))
    pairs = pairs[order]
    found, first = np.unique(pairs // len(names), return_index=True)
    user_ids = frame["user_id"].cat.categories[found]
    return dict(zip(user_ids, np.sort(names)[pairs[first] % len(names)], strict=True))


def _join_small(sizes: Mapping[str, int], min_users: int) -> dict[str, str]:
    """Return small silo -> its group, by a hash of the silo id.

    Groups are as many as leave each `min_users` customers, at most half as many as would
    fit: a hash fills them unevenly.
    """
    small = {silo_id: n for silo_id, n in sizes.items() if n < min_users}
    for count in range(max(1, sum(small.values()) // (2 * max(1, min_users))), 0, -1):
        groups = {silo_id: _hash(silo_id) % count for silo_id in small}
        filled = np.zeros(count, dtype=np.int64)
        for silo_id, group in groups.items():
            filled[group] += small[silo_id]
        if filled.min() >= min_users:
            break
    width = len(str(count - 1))
    return {silo_id: f"{GROUP}-{group:0{width}d}" for silo_id, group in groups.items()}


def _dirichlet(
    market: Marketplace, n_users: int, rows: Rows, silos: SilosConfig, seed: int
) -> NDArray[np.int64]:
    """Return (n_users,) silos: customers of one taste go to silos by one Dirichlet draw.

    A customer's taste is the first category tag that most of the rows carry.
    """
    if silos.concentration <= 0:
        raise ConfigError(f"silos.concentration {silos.concentration} must be > 0")
    tags = np.array([tag.split("|")[0] for tag in market.catalogue.categories])
    names, item_tags = np.unique(tags, return_inverse=True)
    pairs, counts = np.unique(
        rows.user_nums * len(names) + item_tags[rows.item_nums], return_counts=True
    )
    order = np.lexsort((-counts, pairs // len(names)))
    users, first = np.unique(pairs[order] // len(names), return_index=True)
    tastes = np.zeros(n_users, dtype=np.int64)
    tastes[users] = pairs[order][first] % len(names)
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(silos.count, silos.concentration), size=len(names))
    limits = np.cumsum(shares, axis=1)[tastes]
    drawn = (limits < rng.random((n_users, 1))).sum(axis=1)
    return np.asarray(np.minimum(drawn, silos.count - 1), dtype=np.int64)


def silo_weights(config: SilosConfig, silo_ids: Sequence[str]) -> dict[str, float]:
    """Return the declared public weight of each silo; nothing where none is declared.

    Raises:
        ConfigError: there are not as many weights as silos, or one is not positive.
    """
    if not config.weights:
        return {}
    if len(config.weights) != len(silo_ids) or not all(w > 0 for w in config.weights):
        raise ConfigError(
            f"silos.weights must be {len(silo_ids)} numbers > 0, not {list(config.weights)}"
        )
    return dict(zip(silo_ids, config.weights, strict=True))
