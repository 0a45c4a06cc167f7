"""What a plan is made from: models, the promise to customers, who takes part, public facts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fondaco.shared.config import unknown_name
from fondaco.shared.errors import ConfigError
from fondaco.shared.metrics import parse_metric
from fondaco.shared.models import MODELS
from fondaco.shared.models.autoencoder import AutoencoderTerms
from fondaco.shared.models.base import Terms
from fondaco.shared.models.content_tower import ContentTowerTerms
from fondaco.shared.models.mf import MfTerms
from fondaco.shared.models.sequence import SequenceTerms
from fondaco.shared.models.terms import day_of
from fondaco.shared.privacy.plan import KEY_AGREEMENTS, MASKED, Mode, RunPlan, Trust


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """`[privacy]`: what each customer is promised."""

    epsilon: float = 4.0
    """Budget of the whole plan, certified by PLD [1]."""
    target_delta: float = 1e-5
    """Failure probability of the guarantee [probability]."""
    trust: Trust = "aggregate"
    """`aggregate`: noise shared under secure aggregation; `silo`: each silo adds all of it."""
    secure_aggregation: str = ""
    """`masked-sum`: nobody reads anything but sums; `simulated`: sums in the clear (simulations
    only). "" means `masked-sum` if noise is shared and, in a simulation, the silos suffice."""
    key_agreement: str = "x25519"
    """How silos agree on masks; `x25519-mlkem768` also withstands a later quantum computer."""
    popularity_share: float = 0.1
    """Part of the budget (of mu squared) for the popularity release."""
    fusion_share: float = 0.03
    """Part for what the models' parts are worth to each other, where there are several; the
    models divide the rest by their own `share`."""
    head: int = 0
    """Items of the Gram; 0 follows the public rule of `shared/models/gram.py`."""


@dataclass(frozen=True, kw_only=True)
class CohortConfig:
    """`[cohort]`: how many silos must take part, and how many may be dishonest."""

    min_present: int = 0
    """Fewer silos than this end the round; 0 means all but a tenth."""
    t_collude: int = 0
    """Silos that may pool their knowledge with the server; 0 means max(1, a tenth)."""
    witnesses: int = 0
    """Other silos that must have co-signed a ledger before its next release; 0 means one more than
    may collude, at least two where there are so many."""


@dataclass(frozen=True, kw_only=True)
class ModelTables:
    """Which models are learned, and a table of knobs for each that could be."""

    models: tuple[str, ...] = ("gram",)
    """Names of `shared/models`; each has a table of its own knobs below."""
    gram: Terms = field(default_factory=Terms)
    mf: MfTerms = field(default_factory=MfTerms)
    autoencoder: AutoencoderTerms = field(default_factory=AutoencoderTerms)
    sequence: SequenceTerms = field(default_factory=SequenceTerms)
    content_tower: ContentTowerTerms = field(default_factory=ContentTowerTerms)

    def terms(self) -> dict[str, Terms]:
        """Return the tables of `models`.

        Raises:
            ConfigError: no model is named, or one twice, or one that does not exist.
        """
        if not self.models or len(set(self.models)) != len(self.models):
            raise ConfigError(f"models={list(self.models)} must name distinct models, at least one")
        for name in self.models:
            if name not in MODELS:
                raise ConfigError(unknown_name(name, sorted(MODELS), "model"))
        return {name: getattr(self, name) for name in self.models}


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Everything but the catalogue that a plan is made from; public facts only.

    Attributes:
        terms: model -> its knobs; what is left to rules is filled in from the budget.
        declared_users: publicly declared rough number of customers over all silos.
        public: further public facts, as text.
        expires: last day on which anything may be debited (ISO, UTC).
        roster: silo id -> public key, of all silos.
        coordinator: the coordinator's public key.
        earlier: plan of the run that this one continues; epsilon then covers both.

    Raises:
        ConfigError: a share of the budget is out of range, or nobody was declared.
    """

    terms: Mapping[str, Terms]
    privacy: PrivacyConfig
    cohort: CohortConfig
    declared_users: int
    public: Mapping[str, str]
    mode: Mode
    expires: str
    roster: Mapping[str, str]
    coordinator: str
    earlier: RunPlan | None = None

    def __post_init__(self) -> None:
        shares = {n: getattr(self.privacy, n) for n in ("popularity_share", "fusion_share")}
        for name, value in shares.items():
            if not 0.0 < value < 1.0:
                raise ConfigError(f"privacy.{name}={value} must lie between 0 and 1")
        allowed = {"secure_aggregation": ("", MASKED, "simulated"), "key_agreement": KEY_AGREEMENTS}
        for name, known in allowed.items():
            if getattr(self.privacy, name) not in known:
                asked = getattr(self.privacy, name)
                raise ConfigError(f"privacy.{name}={asked!r} must be one of {known}")
        if sum(shares.values()) >= 1.0:
            raise ConfigError("popularity_share and fusion_share leave nothing for the models")
        if self.declared_users < 1:
            raise ConfigError(f"declared_users={self.declared_users} must be at least 1")

    @property
    def models_share(self) -> float:
        """Part of the budget that is left for the models."""
        fusion = self.privacy.fusion_share if len(self.terms) > 1 else 0.0
        return 1.0 - self.privacy.popularity_share - fusion


@dataclass(frozen=True, kw_only=True)
class PublicConfig:
    """`[public]`: what everybody may know about the data."""

    declared_users: int
    """Rough number of customers over all silos, as publicly declared; sizes the head."""
    valid_from: str = ""
    """First day (ISO) of the rows that silos hold back to measure by; "" holds none back."""
    test_from: str = ""
    """First day (ISO) of the test rows among these."""
    headline: str = "ndcg@20"
    """The metric by which the models' parts are weighed."""
    keep_repeats: bool = False
    """Whether an item may be recommended to a customer who already took it."""

    def __post_init__(self) -> None:
        parse_metric(self.headline)
        if bool(self.valid_from) != bool(self.test_from):
            raise ConfigError("public.valid_from and public.test_from go together")
        if self.valid_from and not day_of(self.valid_from) < day_of(self.test_from):
            raise ConfigError(
                f"public.valid_from {self.valid_from!r} must be before {self.test_from!r}"
            )

    def as_text(self) -> dict[str, str]:
        """Return the facts under their names in a plan, `declared_users` left out."""
        facts = {"headline": self.headline, "repeats": "yes" if self.keep_repeats else "no"}
        if not self.valid_from:
            return {"protocol": "all-rows", **facts}
        dates = {"valid_from": self.valid_from, "test_from": self.test_from}
        return {"protocol": "time", **facts, **dates}


@dataclass(frozen=True, kw_only=True)
class PlanFile(ModelTables):
    """The file that `fondaco-server plan new` reads."""

    name: str
    """What the federation is called."""
    public: PublicConfig
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    cohort: CohortConfig = field(default_factory=CohortConfig)

    def plan_config(self, roster: Mapping[str, str], coordinator: str, expires: str) -> PlanConfig:
        """Return what a deployed plan of these silos is made from.

        Raises:
            ConfigError: a knob is out of range, or several models have no rows to be weighed by.
        """
        terms = self.terms()
        if len(terms) > 1 and not self.public.valid_from:
            raise ConfigError(
                "several models are weighed by rows that silos hold back: set public.valid_from "
                "and public.test_from, or name one model"
            )
        return PlanConfig(
            terms=terms,
            privacy=self.privacy,
            cohort=self.cohort,
            declared_users=self.public.declared_users,
            public={"dataset": self.name, **self.public.as_text()},
            mode="deploy",
            expires=expires,
            roster=roster,
            coordinator=coordinator,
        )
