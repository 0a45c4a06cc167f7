"""What a scenario file may say: frozen dataclasses, one per TOML table."""

from dataclasses import dataclass, field
from typing import Literal

from fondaco.server.plan_config import ModelTables, PrivacyConfig
from fondaco.shared.config import FusionConfig
from fondaco.shared.errors import ConfigError

Protocol = Literal["time", "last-k", "held-out"]
Partition = Literal["natural", "hash", "dirichlet"]


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """`[dataset]`: which rows are read and how they are split."""

    name: str
    """A name of `fondaco-simulate datasets`, or "files"."""
    data_dir: str = ""
    """Folder that holds data sets which no package ships."""
    item: Literal["type", "product", "line"] = "type"
    """Complete Journey only: what an item is; `line` (a maker's products of one type) also cuts
    it into merchants that sell different makers."""
    interactions: str = ""
    """`files` only: CSV or Parquet table of interactions."""
    items: str = ""
    """`files` only: CSV or Parquet table of the public catalogue."""
    silo_column: str = ""
    """`files` only: column that names the silo of a row."""
    item_features: bool = True
    """Whether public item facts are used at all; without them only ids remain."""
    min_rating: float = 0.0
    """Rows rated lower are not interactions (data sets with ratings only)."""
    min_rows: int = 1
    """Customers with fewer distinct items are left out."""
    protocol: Protocol = "time"
    """How rows are held out for validation and test."""
    valid_from: str = ""
    """`time` only: first day (ISO) of validation rows."""
    test_from: str = ""
    """`time` only: first day (ISO) of test rows."""
    last_k: int = 5
    """`last-k` only: rows held out per customer for each of validation and test."""
    valid_users: int = 500
    """`held-out` only: validation customers."""
    test_users: int = 1000
    """`held-out` only: test customers."""
    keep_repeats: bool = False
    """Whether a target may be an item that the customer already took."""
    declared_users: int = 1000
    """Publicly declared rough number of customers over all silos; sizes the head."""
    n_users: int = 20_000
    """`synthetic` only: customers."""
    n_items: int = 2_000
    """`synthetic` only: items."""
    overlap: float = 1.0
    """`synthetic` only: share of the catalogue that every silo sells [0 to 1]."""

    def __post_init__(self) -> None:
        if self.protocol == "time" and not (self.valid_from and self.test_from):
            raise ConfigError(
                "dataset.valid_from and dataset.test_from are needed to split by time"
            )
        if self.protocol == "time" and self.valid_from >= self.test_from:
            raise ConfigError(
                f"dataset.valid_from {self.valid_from!r} must be before {self.test_from!r}"
            )


@dataclass(frozen=True, kw_only=True)
class SilosConfig:
    """`[silos]`: who the data owners are."""

    partition: Partition = "natural"
    """Natural silos of the data set, an even hash, or a Dirichlet-skewed cut."""
    count: int = 0
    """Number of silos for `hash` and `dirichlet`; for `synthetic` the merchants."""
    min_users: int = 20
    """Natural silos with fewer customers are joined into groups by a hash (simulation only)."""
    largest: int = 0
    """Only so many silos, those with the most customers, take part; 0 means all."""
    concentration: float = 1.0
    """`dirichlet` only: smaller is more skewed."""
    min_present: int = 0
    """Fewer silos than this end the round; 0 means all but a tenth."""
    weights: tuple[float, ...] = ()
    """`trust = "silo"` only: public weight of each silo in an average, in the silos' order; equal
    where none are given. Never the number of a silo's customers, which is private."""
    t_collude: int = 0
    """Silos that may pool their knowledge with the server; 0 means max(1, a tenth)."""
    witnesses: int = 0
    """Other silos that must have co-signed a ledger before its next release; 0 means one more than
    may collude, at least two."""
    epsilon_if_masking_broke: float = 0.0
    """What every owner allows, were each silo's share seen in the clear [1]; 0 sets no limit."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """`[evaluation]`: what is reported."""

    headline: str = "ndcg@20"
    """The metric shown first and used for tuning on validation rows."""
    bootstrap: int = 500
    """Resamples of customers for the 95 % intervals."""
    reference: bool = True
    """Whether a run of several models also learns the first of them alone, at the same epsilon."""
    silos: int = 0
    """Silos that are measured, drawn with the seed; 0 means all."""


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """`[student]`: a small imitation of everybody's model; costs no budget."""

    rank: int = 0
    """Width of its item factors; 0 makes none."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ConfigError(f"student.rank={self.rank} must be at least 0")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """`[engine]`: how the federation runs; cannot change any result."""

    kind: Literal["in-process", "ray"] = "in-process"
    """Our own Grid, or Flower's Ray simulation."""
    deadline_s: float = 600.0
    """Time after which a round goes on without the missing silos [s]."""
    serialise: bool = False
    """In-process only: pass every message through its bytes."""


@dataclass(frozen=True, kw_only=True)
class Scenario(ModelTables):
    """One whole experiment; every field can be overridden with `--set a.b=c`."""

    name: str
    title: str = ""
    tuned_on: str = ""
    """Which data its knobs were tuned on, as `fondaco-simulate tune` writes it."""
    seed: int = 0
    baselines: tuple[str, ...] = ("popularity", "item_knn", "ease_pooled", "ials_pooled")
    dataset: DatasetConfig
    silos: SilosConfig = field(default_factory=SilosConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
