"""--help of the commands that an owner meets first: in words that need no Flower and no DP."""

import re

import pytest

WORDS = {
    "init": ["--kit", "--home", "--courier-user", "--coordinator", "registration", "pin"],
    "doctor": ["--home", "--json", "says how to mend it"],
    "recommend": ["--customer", "--all", "--out", "differential privacy", "never leave"],
    "keys": ["--rotate-node", "--registration", "register FILE --replace"],
}


@pytest.mark.parametrize("command", WORDS)
def test_help_says_what_a_command_is_for(script, desk, command):
    out = re.sub(r"\s+", " ", script(command, "--help"))
    assert [word for word in WORDS[command] if word not in out] == []
    assert list(desk.iterdir()) == []


def test_list_of_commands_names_them_all(script, desk):
    out = script("--help")
    assert [command for command in WORDS if f" {command} " not in out] == []


@pytest.mark.parametrize("command", ["init", "doctor", "recommend"])
def test_command_without_its_options_ends_with_usage(script, desk, command):
    script(command, code=2)
    assert "Missing option" in script.err
    assert "Traceback" not in script.err
