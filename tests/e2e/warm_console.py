"""Runs console commands as real processes, forked from one that has imported everything.

One request per line on standard input, as JSON: `program` and `argv`; `cwd`; `out` and `err`,
files for its output; `die`, maybe, a function before whose nth call the process kills itself
with SIGKILL, as `{"module", "name", "nth"}`. One line with the return code comes back.
"""

import gc
import importlib
import json
import os
import signal
import sys

import fondaco.client.cli
import fondaco.simulation.cli
import fondaco.simulation.library
import fondaco.simulation.run

PROGRAMS = {
    "fondaco-simulate": fondaco.simulation.cli.main,
    "fondaco-client": fondaco.client.cli.main,
}
LONGEST_S = 120
TINY = ["dataset.n_users=30", "dataset.n_items=30", "silos.count=4", "privacy.head=16"]


def die_before(module, name, nth):
    owner = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def run(request):
    """In the child: never returns."""
    signal.alarm(LONGEST_S)
    os.chdir(request["cwd"])
    with open(request["out"], "wb") as out, open(request["err"], "wb") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if request.get("die"):
        die_before(**request["die"])
    sys.argv = [request["program"], *request["argv"]]
    code = 0
    try:
        PROGRAMS[request["program"]]()
    except SystemExit as end:
        code = end.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking down what was imported would take longer than most commands


def serve():
    # Fills what is worth keeping for all: lazy imports and the calibration of one budget.
    fondaco.simulation.run.prepare(fondaco.simulation.library.load_scenario("synthetic", TINY))
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            run(request)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
