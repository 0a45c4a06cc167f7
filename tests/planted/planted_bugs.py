"""The table of planted bugs; `python tests/planted/planted_bugs.py` prints it as Markdown."""

import sys

from planted_books import BOOKS
from planted_masks import MASKS
from planted_mechanisms import MECHANISMS

BUGS = (*MECHANISMS, *BOOKS, *MASKS)


def markdown() -> str:
    """Return the table: bug, where it was put, which check catches it."""
    rows = [
        f"| {bug.name} | `{bug.where}` | {'; '.join((bug.caught_by, *bug.also))} |" for bug in BUGS
    ]
    return "\n".join(["| planted bug | in | caught by |", "|---|---|---|", *rows])


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
