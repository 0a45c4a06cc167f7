"""What README shows must be what happens."""

import doctest
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_readme_python_session_runs_as_printed():
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert tried >= 5
    assert failed == 0


def test_readme_draws_the_tree_true():
    """Every file named in the drawing exists in its room."""
    root = README.parent
    drawing = README.read_text(encoding="utf-8").split("## The house")[1].split("```")[1]
    room = root
    for line in drawing.strip().splitlines():
        words = line.split()
        if not line.startswith(" "):
            room = root / words[0]
            assert room.is_dir(), words[0]
        for word in words:
            if word.endswith(".py") and "*" not in word:
                assert (room / word).is_file(), f"{room.name}/{word}"


def test_readme_names_every_part_of_the_trusted_core():
    core = README.parent / "shared" / "privacy"
    parts = {path.stem for path in core.glob("*.py")} - {"__init__"}
    drawing = README.read_text(encoding="utf-8").split("the trusted core, in reading order:\n")[1]
    assert set(drawing.splitlines()[0].split()) == parts
