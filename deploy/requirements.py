"""Writes what to install, every file by its SHA-256: `pip install --require-hashes --no-deps`.

`python deploy/requirements.py WHEEL --out FOLDER [--extras a,b] [--name requirements.txt]`, run by
the interpreter of an environment in which fondaco is installed and was tested, on a machine like
the one that it will be installed on (same Python, system and processor).

pip resolves WHEEL anew, bound to the versions installed here, and says which files it would take.
Of each the file gets name, version and hash; no address, so it holds for any mirror. Files that
pip found on this machine's disk, WHEEL itself among them, go to FOLDER/wheels: a mirror may not
have them (builds of torch for the CPU alone, for instance).
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

_HEAD = """\
# Written by deploy/requirements.py; install with
#   pip install --require-hashes --no-deps --only-binary :all: --find-links wheels -r {name}
"""
Item = Mapping[str, Any]


def resolved(wheel: Path, extras: str, constraints: Sequence[str]) -> list[Item]:
    """Return the files that pip would install, as its report describes them."""
    with tempfile.TemporaryDirectory() as folder:
        pins, report = Path(folder, "pins.txt"), Path(folder, "report.json")
        pins.write_text("".join(f"{line}\n" for line in constraints), encoding="utf-8")
        wanted = f"fondaco[{extras}] @ {wheel.resolve().as_uri()}"
        words = ["install", "--dry-run", "--ignore-installed", "--only-binary", ":all:", "--quiet"]
        words += ["--constraint", str(pins), "--report", str(report), wanted]
        _pip(*words)
        items: list[Item] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return sorted(items, key=_name)


def installed() -> list[str]:
    """Return `name==version` of everything installed here but fondaco."""
    found = _pip("list", "--format", "freeze", "--exclude", "fondaco")
    return [line for line in found.splitlines() if "==" in line]


def line_of(item: Item) -> str:
    """Return one requirement.

    Raises:
        SystemExit: pip knows no hash of the file.
    """
    hashes = item["download_info"].get("archive_info", {}).get("hashes", {})
    if not re.fullmatch("[0-9a-f]{64}", hashes.get("sha256", "")):
        raise SystemExit(f"error: no SHA-256 is known of {_name(item)}; nothing was written")
    version = item["metadata"]["version"]
    return f"{_name(item)}=={version} --hash=sha256:{hashes['sha256']}\n"


def keep_local(items: Sequence[Item], folder: Path) -> None:
    """Copy what lies on this machine's disk into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        address = urlparse(item["download_info"]["url"])
        if address.scheme == "file":
            shutil.copy2(unquote(address.path), folder)


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--extras", default="")
    parser.add_argument("--name", default="requirements.txt")
    asked = parser.parse_args()
    items = resolved(asked.wheel, asked.extras, installed())
    lines = [line_of(item) for item in items]
    keep_local(items, asked.out / "wheels")
    text = _HEAD.format(name=asked.name) + "".join(lines)
    (asked.out / asked.name).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{asked.out / asked.name}: {len(lines)} files, each by its hash\n")


def _name(item: Item) -> str:
    return re.sub(r"[-_.]+", "-", str(item["metadata"]["name"])).lower()


def _pip(*words: str) -> str:
    command = [sys.executable, "-m", "pip", *words, "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"error: pip {words[0]} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
