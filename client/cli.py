"""fondaco-client: a data owner's command line.

Exit codes: 0 done, 1 the answer is no, 2 could not do it.
"""

from fondaco.shared.console import new_app
from fondaco.shared.console import run as run_app

from .commands.budget import approve, erase, leave, ledger, policy
from .commands.data import load
from .commands.joining import doctor, init
from .commands.keys import keys
from .commands.running import courier, run
from .commands.serving import recommend
from .commands.status import history, status

app = new_app(
    "A data owner's side: keys, limits, plans, ledger, and recommendations for customers."
)

for command in (
    init,
    policy,
    load,
    doctor,
    approve,
    run,
    recommend,
    status,
    ledger,
    history,
    erase,
    leave,
    keys,
    courier,
):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    run_app(app)


if __name__ == "__main__":
    main()
