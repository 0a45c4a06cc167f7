"""What the coordinator keeps per round, so that a killed run resumes with the same result."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fondaco.shared.errors import RoundError

from .tensors import save_tensors

_KEY = "total"


@dataclass(frozen=True)
class Dropped:
    """A silo that did not take part in a round, and why."""

    silo_id: str
    round_num: int
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundResult:
    """The joint release of one round.

    Attributes:
        total: (dim,) noisy sum over `present` [grid units].
    """

    kind: str
    round_num: int
    total: NDArray[np.int64]
    present: tuple[str, ...]
    dropped: tuple[Dropped, ...]


class Checkpoints:
    """Finished rounds of one plan in a folder."""

    def __init__(self, folder: Path, plan_digest: str) -> None:
        self._folder = folder
        self._plan_digest = plan_digest

    def save(self, result: RoundResult) -> None:
        """Write a finished round; it is there whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "plan_digest": self._plan_digest,
            "kind": result.kind,
            "present": list(result.present),
            "dropped": [asdict(d) for d in result.dropped],
        }
        path = self._path(result.round_num)
        save_tensors({_KEY: result.total}, path, {"facts": json.dumps(facts)})

    def load(self, round_num: int) -> RoundResult | None:
        """Return a finished round of this plan, None if it has not been finished.

        Raises:
            RoundError: the file is damaged or belongs to another plan.
        """
        path = self._path(round_num)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads(file.metadata()["facts"])
                owner = facts["plan_digest"]
                result = RoundResult(
                    kind=facts["kind"],
                    round_num=round_num,
                    total=file.get_tensor(_KEY),
                    present=tuple(facts["present"]),
                    dropped=tuple(Dropped(**d) for d in facts["dropped"]),
                )
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise RoundError(f"{path} is damaged: {error}") from error
        if owner != self._plan_digest:
            raise RoundError(f"{path} belongs to another plan; remove it or choose another folder")
        return result

    def _path(self, round_num: int) -> Path:
        return self._folder / f"round-{round_num}.safetensors"
