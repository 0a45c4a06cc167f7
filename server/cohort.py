"""Who takes part in a run, by Flower node, and which other nodes are asked whether they do."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from .checkpoint import Dropped

MOST_REST = 16
"""A node that never answers a roll call sits out so many of them at most."""


def name_of(node: int) -> str:
    """Return what a node is called while nobody has shown whose it is."""
    return f"node {node}"


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Silos that answered the roll call, by Flower node, and whoever could not be taken in."""

    silos: Mapping[int, str] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()

    def has(self, silo_id: str, here: Collection[int]) -> bool:
        """Return whether a silo takes part from one of the nodes that are here."""
        return any(node in here for node, silo in self.silos.items() if silo == silo_id)

    def joined(self, node: int, silo_id: str) -> "Cohort":
        """Return the cohort with this silo, from this node and no other."""
        others = {other: silo for other, silo in self.silos.items() if silo != silo_id}
        told = tuple(d for d in self.dropped if d.silo_id not in (silo_id, name_of(node)))
        return Cohort(silos={**others, node: silo_id}, dropped=told)

    def refused(self, drop: Dropped) -> "Cohort":
        """Return the cohort with one more reason, said once."""
        return replace(self, dropped=tuple(dict.fromkeys([*self.dropped, drop])))


class Unheard:
    """Nodes that gave no answer to a roll call: each time they are asked again later."""

    def __init__(self) -> None:
        self._calls = 0
        self._silent: dict[int, int] = {}
        self._next: dict[int, int] = {}

    def due(self, nodes: Iterable[int]) -> list[int]:
        """Return who of `nodes` is asked in the roll call that begins now."""
        self._calls += 1
        return sorted(node for node in nodes if self._next.get(node, 0) <= self._calls)

    def note(self, node: int) -> None:
        """Take in that a node did not answer."""
        silent = self._silent[node] = self._silent.get(node, 0) + 1
        self._next[node] = self._calls + min(2**silent, MOST_REST)
