"""What the four command lines show under --help."""

import inspect
import typing

import pytest
from typer.models import ArgumentInfo, OptionInfo
from typer.testing import CliRunner

from fondaco.client.cli import app as client
from fondaco.server.cli import app as server
from fondaco.shared.audit_cli import app as audit
from fondaco.simulation.cli import app as simulate

APPS = {"simulate": simulate, "client": client, "server": server, "audit": audit}
WIDE = {"COLUMNS": "1000"}


def commands():
    """Yield the words and the function of every command."""
    for name, app in APPS.items():
        groups = [([], app), *(([one.name], one.typer_instance) for one in app.registered_groups)]
        for words, group in groups:
            for command in group.registered_commands:
                called = command.name or command.callback.__name__
                yield name, [*words, called], command.callback


def show(name, words):
    result = CliRunner().invoke(APPS[name], [*words, "--help"], env=WIDE)
    assert result.exit_code == 0, result.output
    return result.output


COMMANDS = [pytest.param(*one, id=" ".join([one[0], *one[1]])) for one in commands()]


@pytest.mark.parametrize(("name", "words", "function"), COMMANDS)
def test_help_says_what_every_argument_and_option_is(name, words, function):
    out = show(name, words)
    hints = typing.get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters:
        infos = getattr(hints[parameter], "__metadata__", ())
        (info,) = [one for one in infos if isinstance(one, ArgumentInfo | OptionInfo)]
        assert info.help, parameter
        assert info.help in out
        if isinstance(info.show_default, str):
            assert f"[default: ({info.show_default})]" in out


@pytest.mark.parametrize(("name", "words", "function"), COMMANDS)
def test_help_breaks_no_line_inside_of_a_paragraph(name, words, function):
    out = show(name, words)
    for paragraph in inspect.getdoc(function).split("\n\n"):
        assert " ".join(paragraph.split()) in out
