"""Global models that came here, on which later rounds may build."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fondaco.shared import codec
from fondaco.shared.catalogue import Catalogue
from fondaco.shared.codec import Shapes
from fondaco.shared.errors import RefusalError
from fondaco.shared.files import write_durably
from fondaco.shared.models import PublicFacts
from fondaco.shared.privacy.plan import RunPlan
from fondaco.shared.records import GlobalModel


class ReceivedModels:
    """The newest global model of a plan, and the files of those before it.

    Args:
        plan: whose models are taken.
        catalogue: the public items that it names.
        folder: shared by all silos of a machine.
    """

    def __init__(self, plan: RunPlan, catalogue: Catalogue, folder: Path) -> None:
        self._plan = plan
        self._catalogue = catalogue
        self._folder = folder
        self._shapes = Shapes.of_plan(plan)
        self._newest, self._digest = b"", ""

    @property
    def newest(self) -> GlobalModel | None:
        """Everybody's model once it is here."""
        return self._read(self._newest).model if self._newest else None

    def take(self, blob: bytes, model: GlobalModel) -> bool:
        """Take over `model`, as decoded from `blob`; return whether it was the plan's last.

        Raises:
            RefusalError: it belongs to another plan or catalogue, or its head is no head.
        """
        wanted = self._plan.digest, self._plan.catalogue_digest
        if (model.plan_digest, model.catalogue_digest) != wanted:
            raise RefusalError(
                "the global model belongs to another plan or catalogue", "other-plan"
            )
        check_head(model.head, self._plan.n_items)
        if model.after_round > len(self._plan.releases):
            raise RefusalError("the global model rests on rounds that are not planned", "bad-round")
        self._newest, self._digest = blob, _sha256(blob)
        last = model.after_round == len(self._plan.releases)
        if not last:
            self._keep(blob)
        return last

    def require(self, digest: str) -> None:
        """Make the global model that a request builds upon the newest one.

        Raises:
            RefusalError: it has not been sent here.
        """
        if self._digest == digest:
            return
        if not re.fullmatch("sha256:[0-9a-f]{64}", digest):
            raise RefusalError("the request names no global model to build upon", "no-model")
        path = self._path(digest)
        blob = path.read_bytes() if path.is_file() else b""
        if _sha256(blob) != digest:
            raise RefusalError(
                "the request builds upon a global model that is not here", "no-model"
            )
        self.take(blob, codec.decode(blob, GlobalModel, self._shapes))

    def facts(self, digest: str) -> PublicFacts:
        """Return what is public once the named model is.

        Raises:
            RefusalError: it has not been sent here.
        """
        self.require(digest)
        return self._read(self._newest)

    def _read(self, blob: bytes) -> PublicFacts:
        return _facts(blob, self._catalogue, self._shapes)

    def _keep(self, blob: bytes) -> None:
        """Keep a model for agents of other processes; silos of one machine share the files.

        A plan needs no more of them than it has rounds; older ones go.
        """
        path = self._path(_sha256(blob))
        if not path.is_file():
            write_durably(path, blob)
        kept = sorted(self._folder.glob("*.fndc"), key=lambda p: p.stat().st_mtime_ns)
        for old in kept[: -len(self._plan.releases)]:
            old.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.fndc"


def check_head(head: NDArray[np.int64], n_items: int) -> None:
    """Refuse a head of anything but distinct items.

    Raises:
        RefusalError: it holds an item twice, or one that does not exist.
    """
    if len(np.unique(head)) != len(head) or np.any((head < 0) | (head >= n_items)):
        raise RefusalError("the head must hold distinct items of the catalogue", "bad-head")


@lru_cache(maxsize=3)
def _facts(blob: bytes, catalogue: Catalogue, shapes: Shapes) -> PublicFacts:
    """The global model in `blob`, read once for all silos of a process."""
    return PublicFacts(catalogue=catalogue, model=codec.decode(blob, GlobalModel, shapes))


def _sha256(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
