"""What faults are judged by: records, leaks and notes; and small disks."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

CANARY = "canary-customer-"


def wrong_with(records: Sequence[Mapping], plan: object) -> list[str]:
    """Return what our own count of debits and releases finds, without the auditor's rules."""
    debits = {r["seq"]: r for r in records if r["type"] == "DEBIT"}
    releases = [r for r in records if r["type"] == "RELEASE"]
    unmasked = [r for r in records if r["type"] == "UNMASK"]
    found = [f"{n} debits of {key}" for key, n in _keys(debits.values()).items() if n > 1]
    found += [f"{n} answers unmask {key}" for key, n in _keys(unmasked).items() if n > 1]
    for release in releases:
        debit = debits.get(release["debit_seq"])
        if debit is None or debit["seq"] > release["seq"]:
            found.append(f"release {release['seq']} without a debit")
        elif _key(debit) != _key(release):
            found.append(f"release {release['seq']} is not what was paid for")
    if len({r["debit_seq"] for r in releases}) != len(releases):
        found.append("two releases of one debit")
    if sum(r["cost"] for r in debits.values()) > plan.budget_units:
        found.append("more than the budget was spent")
    return found


def _key(record: Mapping) -> tuple:
    return tuple(record[name] for name in ("plan_digest", "kind", "round_num", "attempt"))


def _keys(records: Iterable[Mapping]) -> Counter:
    return Counter(map(_key, records))


def leaks(*groups: object) -> list[str]:
    """Return the files that hold a customer's name."""
    paths = [path for group in groups for path in group if path.is_file()]
    return [
        f"{path.name} names a customer" for path in paths if CANARY.encode() in path.read_bytes()
    ]


def say(path: Path, **facts: object) -> None:
    """Append a line to a note."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")


def notes(path: Path) -> list[dict]:
    """Return a note's lines."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def mount(folder: Path, size: str) -> None:
    """Put a small disk at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "fondaco", str(folder)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603


def unmount(folder: Path) -> None:
    """Take it away."""
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)  # noqa: S603, S607
