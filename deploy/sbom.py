"""Writes the bill of materials (CycloneDX 1.6, JSON) of what is installed by hash.

`python deploy/sbom.py PYTHON REQUIREMENTS --out FILE`, by an interpreter that has cyclonedx-bom.
Names, licences and who needs whom come from the environment of PYTHON; of it only what
REQUIREMENTS lists is kept (no tools of developers), each with the hash of the file that is
installed. The same input gives the same bytes.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

Bill = dict[str, Any]


def hashes(text: str) -> dict[str, str]:
    """Return name -> SHA-256 of what requirements list."""
    lines = (
        re.match(r"([a-z0-9-]+)==\S+ --hash=sha256:([0-9a-f]{64})", li) for li in text.split("\n")
    )
    return {m[1]: m[2] for m in lines if m}


def bill_of(python: Path) -> Bill:
    """Return the bill of a whole environment.

    Raises:
        SystemExit: it cannot be read.
    """
    words = ["environment", str(python), "--of", "JSON", "--sv", "1.6", "--output-reproducible"]
    command = [sys.executable, "-m", "cyclonedx_py", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"error: cyclonedx-py failed: {done.stderr.strip()[-500:]}")
    found: Bill = json.loads(done.stdout)
    return found


def narrowed(bill: Bill, wanted: Mapping[str, str]) -> Bill:
    """Return the bill of those parts that are wanted, with their hashes.

    Raises:
        SystemExit: one is not installed.
    """
    parts = {_name(part["name"]): part for part in bill["components"]}
    if missing := sorted(set(wanted) - set(parts)):
        raise SystemExit(f"error: {', '.join(missing[:5])} is not installed in that environment")
    kept = [
        {**parts[name], "hashes": [{"alg": "SHA-256", "content": wanted[name]}]}
        for name in sorted(wanted)
    ]
    known = {part["bom-ref"] for part in kept}
    needs = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", []) if ref in known]}
        for entry in bill.get("dependencies", [])
        if entry["ref"] in known
    ]
    meta = {
        key: bill["metadata"][key] for key in ("tools", "properties") if key in bill["metadata"]
    }
    return {**bill, "metadata": meta, "components": kept, "dependencies": needs}


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("python", type=Path)
    parser.add_argument("requirements", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    wanted = hashes(asked.requirements.read_text(encoding="utf-8"))
    text = json.dumps(narrowed(bill_of(asked.python), wanted), indent=1, sort_keys=True)
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if fault is not None:
        raise SystemExit(f"error: the bill is not valid CycloneDX: {fault}")
    asked.out.write_text(f"{text}\n", encoding="utf-8")
    sys.stdout.write(f"{asked.out}: {len(wanted)} parts\n")


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
