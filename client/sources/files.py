"""Sources that are a file or a folder of files."""

from pathlib import Path

from fondaco.shared.errors import DataError


def files_of(path: Path, suffix: str) -> list[Path]:
    """Return the file, or those of a folder and its folders in the order of their names.

    Files and folders whose names begin with "_" or "." are passed over, as all who write
    such folders agree.

    Raises:
        DataError: nothing is there, or a folder without such files.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist or is not a file")
    found = [one for one in path.rglob(f"*{suffix}") if one.is_file()]
    shown = [one for one in found if not _is_hidden(one.relative_to(path))]
    if not shown:
        raise DataError(f"{path} is a folder without any {suffix} file")
    return sorted(shown)


def name_of(path: Path, inside: Path) -> str:
    """Return what messages call a file."""
    return path.name if path == inside else path.relative_to(inside).as_posix()


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(("_", ".")) for part in path.parts)
