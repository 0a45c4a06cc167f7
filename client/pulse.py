"""What an agent notes of itself for `fondaco-client status`: when it was asked what, and how much.

Sizes follow from the plan; nothing here depends on rows.
"""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fondaco.shared.files import write_whole

FILE = "pulse.json"
PHASES = 200
"""So many of the last questions are kept."""


class Pulse:
    """Writes `pulse.json` in an owner's folder.

    Args:
        home: the owner's folder.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        known = read_pulse(home)
        self._facts: dict[str, Any] = {
            "pid": os.getpid(),
            "started": time.time(),
            "last_contact": known.get("last_contact", 0.0),
            "received": known.get("received", 0),
            "sent": known.get("sent", 0),
            "phases": known.get("phases", []),
        }
        self._write()

    def beat(self, action: str, received: int, sent: int) -> None:
        """Note that one question was answered [bytes]."""
        now = time.time()
        phase = {"time": now, "action": action, "received": received, "sent": sent}
        self._facts |= {
            "last_contact": now,
            "received": self._facts["received"] + received,
            "sent": self._facts["sent"] + sent,
            "phases": [*self._facts["phases"], phase][-PHASES:],
        }
        self._write()

    def _write(self) -> None:
        with suppress(OSError):  # a full disk must not cost an answer that was paid for
            write_whole(self._path, json.dumps(self._facts))


def read_pulse(home: Path) -> dict[str, Any]:
    """Return what an agent noted last; empty if none ran here, or the file is damaged."""
    try:
        facts = json.loads((home / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
