"""Asks for known vulnerabilities of everything that is installed by hash; says so if it cannot.

`python deploy/audit_deps.py REQUIREMENTS...`, by an interpreter that has pip-audit. pip-audit
counts what its service does not know as "no known vulnerabilities"; so the service is first asked
about a release whose vulnerabilities have been public for years, and every release must be known.

Exit codes: 0 none known, 1 some are, 2 nothing could be learned.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

OLD = "jinja2==2.10"
"""Vulnerable: PYSEC-2019-217 and others."""
Found = Sequence[Mapping[str, Any]]


class UnauditedError(Exception):
    """Nothing could be learned."""


def pins(lines: Iterable[str]) -> list[str]:
    """Return `name==version` of all but fondaco, without local parts such as +cpu."""
    found = (re.match(r"([a-z0-9-]+)==([^ +]+)", line) for line in lines)
    return sorted({f"{m[1]}=={m[2]}" for m in found if m and m[1] != "fondaco"})


def ask(wanted: Sequence[str]) -> Found:
    """Return what pip-audit says of each release.

    Raises:
        UnauditedError: it fails, or does not know one.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requirements.txt")
        path.write_text("".join(f"{pin}\n" for pin in wanted), encoding="utf-8")
        words = ["--requirement", str(path), "--no-deps", "--disable-pip", "--format", "json"]
        command = [sys.executable, "-m", "pip_audit", *words, "--progress-spinner", "off"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        found: Found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UnauditedError(f"pip-audit failed: {last}") from None
    skipped = [entry["name"] for entry in found if "vulns" not in entry]
    if skipped or len(found) != len(wanted):
        raise UnauditedError(
            f"the advisory service does not answer for {len(skipped) or 'some'} of {len(wanted)} "
            f"releases ({', '.join(skipped[:5])})"
        )
    return found


def audit(paths: Sequence[Path]) -> Found:
    """Return the vulnerable ones among the releases that the files name.

    Raises:
        UnauditedError: nothing could be learned.
    """
    wanted = pins(line for path in paths for line in path.read_text("utf-8").splitlines())
    if not wanted:
        raise UnauditedError("no requirements were given")
    if not ask([OLD])[0]["vulns"]:
        raise UnauditedError(f"the advisory service calls {OLD} sound, which it is not")
    return [entry for entry in ask(wanted) if entry["vulns"]]


def main() -> None:
    """Do it."""
    try:
        vulnerable = audit([Path(word) for word in sys.argv[1:]])
    except UnauditedError as error:
        sys.stderr.write(f"error: nothing was audited: {error}\n")
        raise SystemExit(2) from None
    for entry in vulnerable:
        ids = ", ".join(vulnerability["id"] for vulnerability in entry["vulns"])
        sys.stdout.write(f"{entry['name']} {entry['version']}: {ids}\n")
    if vulnerable:
        raise SystemExit(1)
    sys.stdout.write("no known vulnerabilities\n")


if __name__ == "__main__":
    main()
