"""What every federated model says about itself, and what its functions are given."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fondaco.shared.catalogue import Catalogue
from fondaco.shared.errors import ConfigError
from fondaco.shared.privacy.gradients import Factors

if TYPE_CHECKING:
    from fondaco.shared.records import GlobalModel

    from .networks.base import Network

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]

OPTIMIZERS = ("fedavg", "fedavgm", "fedadam", "fedyogi")
COMBINERS = ("mean", "trimmed_mean", "median")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Public knobs of a model; all of them stand in the plan."""

    share: float = 1.0
    """Part of the budget (of mu squared), relative to the other models'."""

    def __post_init__(self) -> None:
        if not 0.0 < self.share < float("inf"):
            raise ConfigError(f"share={self.share} must be > 0")

    def as_text(self) -> dict[str, str]:
        """Return every knob as text, for the plan."""
        return {field.name: str(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_text(cls, texts: Mapping[str, str]) -> Self:
        """Return what `as_text` wrote.

        Raises:
            ConfigError: a knob is missing, unknown or out of range.
        """
        kinds = {"int": int, "float": float, "str": str}
        try:
            named = {f.name: kinds[str(getattr(f.type, "__name__", f.type))] for f in fields(cls)}
            if set(named) != set(texts):
                raise ConfigError(f"terms {sorted(texts)} must be {sorted(named)}")
            return cls(**{name: kind(texts[name]) for name, kind in named.items()})
        except ValueError as error:
            raise ConfigError(f"terms {dict(texts)} cannot be read: {error}") from error


@dataclass(frozen=True, kw_only=True)
class RoundTerms(Terms):
    """Knobs of a model that is learned over several rounds."""

    rule: ClassVar[str] = "fedadam"
    """What moves the server where nothing is named: an optimizer, or `IterativeModel.advance`."""

    least_rounds: ClassVar[int] = 1
    """0 where `Model.resolve` fills in what is left open."""

    rounds: int = 50
    """Federated rounds."""
    clip_norm: float = 1e-3
    """Bound on a customer's gradient; small enough that (nearly) all are clipped."""
    sampling_rate: float = 1.0
    """Poisson probability that a customer takes part in a step; 1 takes everybody."""
    optimizer: str = ""
    """How the server moves: fedavg, fedavgm, fedadam, fedyogi, or a rule of the model's own;
    by default that rule, else fedadam, and where silos train locally fedavg at a rate of 1."""
    learning_rate: float = 0.02
    """Of the server's optimizer, where one is named or silos send gradients."""
    averaged: float = 0.5
    """Part of the last rounds whose parameters are averaged (free of budget)."""
    local_steps: int = 1
    """`trust = "silo"` only: noisy steps that a silo takes in a round."""
    local_rate: float = 0.02
    """`trust = "silo"` only: learning rate of these steps (Adam)."""
    combiner: str = "mean"
    """`trust = "silo"` only: mean, trimmed_mean or median of the silos' parameters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, ("rounds",), least=self.least_rounds)
        check_range(self, ("local_steps",), least=1)
        check_range(self, ("clip_norm", "learning_rate", "local_rate"), least=1e-12)
        check_range(self, ("sampling_rate", "averaged"), least=1e-6, most=1.0)
        rules = dict.fromkeys((self.rule, *OPTIMIZERS))
        for name, known in (("optimizer", rules), ("combiner", dict.fromkeys(COMBINERS))):
            value = getattr(self, name)
            if value not in known and (value or name != "optimizer"):
                raise ConfigError(f"{name}={value!r} must be one of {', '.join(known)}")


def check_range(terms: object, names: Sequence[str], *, least: float, most: float = 1e9) -> None:
    """Refuse terms of which a named number lies outside of [least, most].

    Raises:
        ConfigError: naming the first that does.
    """
    for name in names:
        value = getattr(terms, name)
        if not least <= value <= most:
            raise ConfigError(f"{name}={value} must lie between {least:g} and {most:g}")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Public lengths that fix every array: items of the catalogue, items of the head."""

    n_items: int
    head: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PublicFacts:
    """What everybody knows by the time a model is learned: public facts and releases."""

    catalogue: Catalogue
    model: "GlobalModel"


@dataclass(frozen=True, kw_only=True, eq=False)
class Timelines:
    """Rows of customers, oldest first; pairs may repeat.

    Attributes:
        indptr: (n_users + 1,) customer u owns rows indptr[u] to indptr[u + 1].
        item_nums: (n_rows,).
        times: (n_rows,) [days, or order where no clock exists].
        now: moment of recommending [days]; infinite where no clock exists.
        n_items: length of the catalogue.
        assortment: (n_items,) the items that this silo sells; None for all.
    """

    indptr: NDArray[np.int64]
    item_nums: NDArray[np.int64]
    times: Array
    now: float
    n_items: int
    assortment: NDArray[np.bool_] | None = None

    @property
    def n_users(self) -> int:
        """Number of customers, those without rows included."""
        return len(self.indptr) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n_users,) rows of each customer."""
        return np.diff(self.indptr)

    def take(self, users: NDArray[np.int64]) -> "Timelines":
        """Return these customers, in this order."""
        lengths = self.lengths[users]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.repeat(self.indptr[users] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return replace(self, indptr=indptr, item_nums=self.item_nums[rows], times=self.times[rows])

    def incidence(self) -> csr_matrix:
        """Return the (n_users, n_items) float32 0/1 matrix of distinct pairs."""
        data = np.ones(len(self.item_nums), dtype=np.float32)
        matrix = csr_matrix((data, self.item_nums, self.indptr), shape=(self.n_users, self.n_items))
        matrix.sum_duplicates()
        matrix.data[:] = 1.0
        return matrix

    def batches(self, n_users: int) -> Iterator[tuple[NDArray[np.int64], "Timelines"]]:
        """Yield at most `n_users` customers at a time, with their numbers."""
        for start in range(0, self.n_users, n_users):
            users = np.arange(start, min(start + n_users, self.n_users))
            yield users, self.take(users)


T = TypeVar("T", bound=Terms)
R = TypeVar("R", bound=RoundTerms)


@dataclass(frozen=True, kw_only=True, eq=False)
class Released:
    """A joint release.

    Attributes:
        total: (dim,) noisy sum of the customers' clipped parts [clip norms].
        noise_stddev: of each number [clip norms].
    """

    total: Array
    noise_stddev: float


class Model(ABC, Generic[T]):
    """A federated model: MODELS holds one instance of each."""

    name: ClassVar[str]
    terms: type[T]

    def resolve(self, terms: T, mu: float, declared_users: int) -> T:
        """Return the terms with whatever is left to a public rule filled in.

        Args:
            terms: as a scenario says.
            mu: the model's own budget, as Gaussian DP [1].
            declared_users: publicly declared rough number of customers over all silos.
        """
        del mu, declared_users
        return terms

    @abstractmethod
    def dim(self, terms: T, sizes: Sizes) -> int:
        """Return the numbers that a silo releases in a round."""

    @abstractmethod
    def n_parameters(self, terms: T, sizes: Sizes) -> int:
        """Return the numbers that `GlobalModel.parameters` holds of it."""


class IterativeModel(Model[R]):
    """A model whose parameters go out and whose gradients come back, round by round."""

    @abstractmethod
    def initial(self, terms: R, facts: PublicFacts) -> Array32:
        """Return (n_parameters,) public initial parameters; equal facts, equal numbers."""

    @abstractmethod
    def scores(
        self, terms: R, facts: PublicFacts, parameters: Array32, timelines: Timelines
    ) -> Array32:
        """Return (n_users, n_items) scores; NaN for items that it cannot score."""

    def advance(
        self, terms: R, facts: PublicFacts, parameters: Array32, released: Sequence[Released]
    ) -> Array32 | None:
        """Return the parameters after the newest of `released`; None: the terms' optimizer moves.

        For models with a rule of their own; not asked where silos train locally.

        Args:
            terms: public knobs.
            facts: public facts.
            parameters: (n_parameters,) that the newest release was computed at.
            released: of this model so far, oldest first.
        """
        del terms, facts, parameters, released
        return None


class NetworkModel(IterativeModel[R]):
    """A PyTorch network, trained by `client/dpsgd.py`."""

    def dim(self, terms: R, sizes: Sizes) -> int:
        """Return the number of parameters: their gradient is released."""
        return self.n_parameters(terms, sizes)

    @abstractmethod
    def network(self, terms: R, facts: PublicFacts) -> "Network":
        """Return the network; what it needs of `facts` is frozen in it."""

    def scores(
        self, terms: R, facts: PublicFacts, parameters: Array32, timelines: Timelines
    ) -> Array32:
        """Return (n_users, n_items) scores of the network with these parameters."""
        from .networks.base import network_scores  # noqa: PLC0415  (torch takes two seconds to import)

        return network_scores(self.network(terms, facts), parameters, timelines)


class FactorModel(IterativeModel[R]):
    """A model whose per-customer statistic is derived by hand."""

    @abstractmethod
    def factors(
        self, terms: R, facts: PublicFacts, parameters: Array32, timelines: Timelines
    ) -> Sequence[Factors]:
        """Return every customer's part of the released vector, not clipped."""
