"""A long search: `python tests/fuzz/run_fuzz.py frames --seconds 600`.

With atheris (`pip install atheris`) coverage steers it; without, bytes are drawn at random.
What broke a parser is written to `crash-*` in the folder where it ran.
"""

import argparse
import importlib
import json
import random
import resource
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PARSERS = ("frames", "codec", "plan", "kit", "secagg_messages")
sys.path[:0] = [str(HERE), str(HERE.parent / "shared" / "secagg")]


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("parser", choices=PARSERS)
    options.add_argument("--seconds", type=int, default=600)
    options.add_argument("--megabytes", type=int, default=512, help="on top of the imports'")
    options.add_argument("--random", action="store_true", help="without atheris")
    chosen = options.parse_args()
    search = _at_random if chosen.random else _search
    search(chosen)


def _search(chosen):
    try:
        import atheris  # noqa: PLC0415
    except ImportError:
        _at_random(chosen)
        return
    with atheris.instrument_imports(include=["fondaco.shared", "fondaco.client"]):
        target = importlib.import_module(f"fuzz_{chosen.parser}").target
    _limit_memory(chosen.megabytes)
    words = [sys.argv[0], f"-max_total_time={chosen.seconds}", "-print_final_stats=1"]
    atheris.Setup([*words, "-max_len=4096", "-len_control=0", "-timeout=60"], target)
    atheris.Fuzz()


def _at_random(chosen):
    target = importlib.import_module(f"fuzz_{chosen.parser}").target
    _limit_memory(chosen.megabytes)
    draws, executions = random.Random(chosen.seconds), 0  # noqa: S311  (nothing secret)
    until = time.monotonic() + chosen.seconds
    while time.monotonic() < until:
        data = draws.randbytes(draws.choice((8, 32, 128, 1024)))
        try:
            target(data)
        except BaseException:
            Path(f"crash-{chosen.parser}-{executions}").write_bytes(data)
            raise
        executions += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"executions": executions, "crashes": 0, "peak_rss_mb": peak}))  # noqa: T201


def _limit_memory(megabytes):
    """Let the address space grow by so much and no more: what asks for it all ends in an error."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
