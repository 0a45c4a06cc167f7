"""What the four command lines share: consoles, `--json`, progress, and errors in one line."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from click import Command, Context
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from typer.core import TyperGroup

from .errors import FondacoError

out_console = Console()
err_console = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]


class Commands(TyperGroup):
    """Shows each paragraph of a command's docstring as one, wherever its lines were broken."""

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Return the command of this name, or None if there is none."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.help:
            paragraphs = command.help.split("\n\n")
            command.help = "\n\n".join(" ".join(part.split()) for part in paragraphs)
        return command


def new_app(purpose: str, cls: type[Commands] = Commands) -> typer.Typer:
    """Return an empty command line with this help."""
    return typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help=purpose,
        cls=cls,
    )


def run(app: typer.Typer) -> None:
    """Run a command line; every error of ours, and of the file system, is one line and exit 2."""
    try:
        app()
    except (FondacoError, OSError) as error:
        line = escape(str(error))
        err_console.print(f"[red]error:[/red] {line}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err_console.print("stopped; run the same command again to resume")
        sys.exit(2)


class Bars:
    """A progress bar per stage, on standard error; (stage, done, of) -> None inside the `with`."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._bar = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=err_console,
            disable=not err_console.is_terminal,
        )
        self._bar.start()
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                tasks[stage] = self._bar.add_task(stage, total=of)
            self._bar.update(tasks[stage], completed=done, total=of)

        return tell

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
