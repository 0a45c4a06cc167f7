"""What a source looked like when it was last read: a column that changes is noticed, not guessed.

The file beside the snapshot holds names and types of columns and no row.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fondaco.shared.chain.canonical import canonical_json
from fondaco.shared.errors import DataError
from fondaco.shared.files import write_durably

from .sources.config import SourceFile
from .sources.table import Source

FILE = "source-schema.json"


@dataclass(frozen=True, kw_only=True)
class SourceShape:
    """Columns of a source that are read.

    Attributes:
        settings: SHA-256 of where the source is and what its columns are called: with other
            settings another shape is the owner's own wish.
        columns: our name -> the source's name and type, "" where the source tells no type.
    """

    settings: str
    columns: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, source: Source, names: Mapping[str, str], file: SourceFile) -> "SourceShape":
        """Return the shape of an open source."""
        where = {**asdict(file.source), "columns": asdict(file.columns)}
        settings = canonical_json({name: str(value) for name, value in sorted(where.items())})
        return cls(
            settings=hashlib.sha256(settings.encode()).hexdigest(),
            columns={ours: (theirs, source.types[theirs]) for ours, theirs in names.items()},
        )

    def check(self, home: Path, name: str) -> None:
        """Hold the shape against that of the last reading.

        Args:
            home: the owner's folder.
            name: of the source, for the message.

        Raises:
            DataError: a column is gone or of another type.
        """
        path = home / FILE
        if not path.is_file():
            return
        try:
            last: Any = json.loads(path.read_text(encoding="utf-8"))
            settings, columns, read = last["settings"], dict(last["columns"]), last["read"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged; remove it to read the source anew") from error
        changes = list(_changes(columns, self.columns)) if settings == self.settings else []
        if changes:
            raise DataError(
                f"{name} is not what it was on {read}: {'; '.join(changes)}. Put it right, or "
                "take it as it is now with fondaco-client load --accept-schema"
            )

    def keep(self, home: Path) -> None:
        """Write the shape down for the next time."""
        today = datetime.now(UTC).date().isoformat()
        columns = {ours: list(found) for ours, found in self.columns.items()}
        body = {"settings": self.settings, "columns": columns, "read": today}
        write_durably(home / FILE, json.dumps(body, ensure_ascii=False, indent=1).encode())


def _changes(
    before: Mapping[str, tuple[str, str]], now: Mapping[str, tuple[str, str]]
) -> list[str]:
    changes = []
    for ours, (theirs, kind) in before.items():
        if ours not in now:
            changes.append(f"column {theirs!r} is gone")
        elif kind and now[ours][1] not in ("", kind):
            changes.append(f"column {theirs!r} holds {now[ours][1]}, was {kind}")
    return changes
