"""`source.toml`: where a silo's rows lie, what their columns are called, how strict to be."""

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fondaco.shared.config import build, read_toml
from fondaco.shared.errors import ConfigError
from fondaco.shared.models.terms import day_of
from fondaco.shared.schema import InteractionColumns

IN_FILES = ("csv", "parquet")
ON_SERVERS = ("postgresql", "mysql")
_PASSWORD = re.compile(
    r"://[^\s\"'/]*:[^\s\"']*@|[?&](password|passwd|sslpassword)=", re.IGNORECASE
)
ELSEWHERE = (
    "write the address into a file of its own (chmod 600) and name that as url_file, or put it "
    "into an environment variable and name that as url_env"
)


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """`[source]`: where the rows lie; nothing is ever written there."""

    kind: Literal["csv", "parquet", "sqlite", "postgresql", "mysql", "duckdb"]
    """What holds them; `mysql` is MariaDB too."""
    path: str = ""
    """A file, or for CSV and Parquet a folder of files; relative to source.toml."""
    url: str = ""
    """Address of a database without any password, such as postgresql://shop@db.local/shop."""
    url_file: str = ""
    """A file that holds nothing but the address, for its owner alone (chmod 600)."""
    url_env: str = ""
    """Name of an environment variable that holds the address."""
    table: str = ""
    """A table or view of a database, with or without its schema."""
    query: str = ""
    """Instead of a table: one SELECT."""
    unix_time: Literal["", "s", "ms", "us"] = ""
    """What numbers in the time column count since 1970; "" takes them as an order only."""
    since: str = ""
    """First day or moment (ISO, UTC) that is read; "" reads from the beginning."""
    until: str = ""
    """First day or moment (ISO, UTC) that is not read any more; "" reads to the end."""

    def __post_init__(self) -> None:
        _check_place(self)
        _check_what(self)
        if self.since and not day_of(self.since) < day_of(self.until):
            raise ConfigError(f"source.since {self.since!r} must be before {self.until!r}")

    @property
    def moments(self) -> tuple[float, float]:
        """First moment that is read, and the first that is not [days since 1970-01-01]."""
        return day_of(self.since) if self.since else -math.inf, day_of(self.until)


@dataclass(frozen=True, kw_only=True)
class ChecksConfig:
    """`[checks]`: what becomes of rows that cannot be used."""

    on_bad_row: Literal["refuse", "quarantine"] = "refuse"
    """`refuse` stops at the first; `quarantine` writes bad rows to a file and goes on."""
    most_bad: float = 0.01
    """Share of bad rows above which nothing is taken over at all [1]."""
    on_unknown_item: Literal["drop", "refuse"] = "drop"
    """Rows of items that the public catalogue does not list, or that are not sold here."""
    min_rating: float = -math.inf
    """Rows rated lower are left out; ratings are not read unless this is set."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.most_bad < 1.0:
            raise ConfigError(f"checks.most_bad={self.most_bad} must lie between 0 and 1")
        if math.isnan(self.min_rating):
            raise ConfigError("checks.min_rating must be a number")


@dataclass(frozen=True, kw_only=True)
class AssortmentConfig:
    """`[assortment]`: the items sold at this silo; everything unless a list is named."""

    path: str = ""
    """A file or folder like that of the source."""
    table: str = ""
    """A table in the source's database."""
    query: str = ""
    """One SELECT in the source's database."""
    column: str = "item_id"
    """The column of item ids."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """The whole of `source.toml`."""

    source: SourceConfig
    columns: InteractionColumns = field(default_factory=InteractionColumns)
    checks: ChecksConfig = field(default_factory=ChecksConfig)
    assortment: AssortmentConfig = field(default_factory=AssortmentConfig)

    def __post_init__(self) -> None:
        _check_assortment(self.source.kind, self.assortment)

    @property
    def sold(self) -> SourceConfig | None:
        """Where the items sold here are listed; None where everything is sold."""
        listed = self.assortment
        if not (listed.path or listed.table or listed.query):
            return None
        return replace(
            self.source,
            path=listed.path or self.source.path,
            table=listed.table,
            query=listed.query,
        )


def read_source_file(path: Path) -> SourceFile:
    """Return what a `source.toml` says, its relative paths made absolute.

    Raises:
        ConfigError: the file is missing, no TOML, holds a password, or a knob is wrong.
    """
    if path.is_file() and _PASSWORD.search(path.read_text(encoding="utf-8", errors="replace")):
        raise ConfigError(f"{path} holds a password, which no settings may; {ELSEWHERE}")
    file = build(SourceFile, read_toml(path), f"{path.name}: ")
    named, listed = file.source, file.assortment
    return replace(
        file,
        source=replace(
            named, path=_beside(path, named.path), url_file=_beside(path, named.url_file)
        ),
        assortment=replace(listed, path=_beside(path, listed.path)),
    )


def _beside(path: Path, name: str) -> str:
    return str(path.absolute().parent / name) if name else ""


def _check_place(source: SourceConfig) -> None:
    given = [name for name in ("path", "url", "url_file", "url_env") if getattr(source, name)]
    wanted = ["url_file", "url_env", "url"] if source.kind in ON_SERVERS else ["path"]
    if len(given) != 1 or given[0] not in wanted:
        raise ConfigError(f"source.kind={source.kind!r} needs one of {', '.join(wanted)}")
    if _PASSWORD.search(source.url):
        raise ConfigError(f"source.url holds a password, which no settings may; {ELSEWHERE}")


def _check_assortment(kind: str, listed: AssortmentConfig) -> None:
    if listed == AssortmentConfig():
        return
    what = [name for name in ("table", "query") if getattr(listed, name)]
    if kind in IN_FILES and (what or not listed.path):
        raise ConfigError(f"source.kind={kind!r} needs assortment.path, and no table or query")
    if kind not in IN_FILES and len(what) != 1:
        raise ConfigError(f"source.kind={kind!r} needs one of assortment.table, assortment.query")
    if kind in ON_SERVERS and listed.path:
        raise ConfigError(
            f"assortment.path is for files; source.kind={kind!r} needs assortment.{what[0]} alone"
        )


def _check_what(source: SourceConfig) -> None:
    given = [name for name in ("table", "query") if getattr(source, name)]
    if source.kind in IN_FILES and given:
        raise ConfigError(f"source.{given[0]} is for databases; {source.kind} files have none")
    if source.kind not in IN_FILES and len(given) != 1:
        raise ConfigError(f"source.kind={source.kind!r} needs either table or query")
