"""Who is told how a run goes: progress bars, a status file, or nobody."""

from collections.abc import Iterable

from .checkpoint import RoundResult


class Watch:
    """Is told how a run goes, and tells nobody."""

    def stage(self, stage: str, heard: int, asked: int) -> None:
        """So many of those asked have answered; nobody yet begins a phase."""

    def present(self, silo_ids: Iterable[str]) -> None:
        """These answered the roll call."""

    def dropped(self, silo_id: str, reason: str) -> None:
        """This one was left out; a node of which nobody knows whose it is has its number."""

    def refused(self, silo_id: str, reason: str) -> None:
        """This one said no, in these words."""

    def traffic(self, silo_id: str, sent: int, received: int) -> None:
        """A silo sent and received so many bytes in the round under way."""

    def round_done(self, result: RoundResult, seconds: float) -> None:
        """A round is over."""
