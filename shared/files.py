"""Files that are there whole or not at all, locks, and names of folders for silos."""

import fcntl
import os
import time
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

INSTANT_S = 0.1
"""`is_locked` asks in far less than this [s]."""


def folder_name(silo_id: str) -> str:
    """Return a file name that no other silo has, never hidden and never another folder."""
    name = quote(silo_id, safe=" ")
    return name if name[:1] != "." else f"%2E{name[1:]}"


def write_whole(path: Path, text: str) -> None:
    """Write `text` so that whoever is killed leaves the old file or the new one."""
    partial = path.with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_durably(path: Path, blob: bytes) -> None:
    """Write a file for its owner's eyes that is there, whole, once this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def takes_lock(file: IO[Any] | int) -> bool:
    """Return whether nobody else has the lock (flock) of `file`, which is then ours.

    Whoever asks `is_locked` holds it for an instant, and is no reason to give up.
    """
    for wait_s in (INSTANT_S, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(wait_s)
        else:
            return True
    return False


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock (flock) of a file; False where there is no file."""
    try:
        with path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
