"""A canary in every private place, real failures, and no trace of it in what a silo's agent says.

The errors quote it (each call holds that first), so it is the logs that keep it in.
"""

import json
import os
import socket
import subprocess
import sys

import pytest

CANARY = "canary-3f9a"
PROGRAM = """
import sys
from pathlib import Path
from fondaco.shared import logs

logs.install("fondaco-agent")
from fondaco.client.sources import open_source, read_interactions, read_items
from fondaco.client.sources.config import SourceConfig, read_source_file
from fondaco.client.state import open_state
from fondaco.shared.chain.keys import Identity
from fondaco.shared.schema import InteractionColumns
from fondaco.shared.vocabulary import Vocabulary

canary, folder, port = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
named = folder / f"{canary}.csv"
key = folder / f"{canary}.pem"
columns = InteractionColumns(user_id=canary, item_id="sku")


def database():
    source = SourceConfig(kind="postgresql", table="orders", url_file=str(folder / "url"))
    with open_source(source) as opened:
        opened.columns


CALLS = {
    "a column of that name": lambda: read_interactions(folder / "rows.csv", columns),
    "a file of that name": lambda: read_interactions(named),
    "a bad time of a customer": lambda: read_interactions(folder / "times.csv"),
    "an item twice": lambda: read_items(folder / "items.csv"),
    "a customer twice": lambda: Vocabulary((canary, canary)),
    "an unknown customer": lambda: Vocabulary(("ann",)).num(canary),
    "a key readable by others": lambda: Identity.load(key, "fondaco/north"),
    "a folder that is no silo": lambda: open_state(folder / canary),
    "a mapping of that name": lambda: read_source_file(folder / f"{canary}.toml"),
    "a password": database,
}

for name, call in CALLS.items():
    print(name, flush=True)
    quoted = ""
    try:
        with logs.guard():
            try:
                call()
            except Exception as error:
                quoted = str(error)
                raise
    except SystemExit:
        pass
    if not quoted:
        raise SystemExit(f"{name}: nothing failed")
    if name != "a password" and canary not in quoted:
        raise SystemExit(f"{name}: the error does not quote it")
    logs.failed(ValueError(quoted), "agent.refused", action="release")
raise KeyError(canary)
"""


@pytest.fixture
def folder(tmp_path):
    """Private places, each with the canary in it."""
    (tmp_path / "rows.csv").write_text(f"customer,sku\n{CANARY},{CANARY}\n")
    (tmp_path / "times.csv").write_text(
        f"user_id,item_id,time\nann,rug,2024-01-01\n{CANARY},rug,{CANARY}\n"
    )
    (tmp_path / "items.csv").write_text(f"item_id\n{CANARY}\n{CANARY}\n")
    (tmp_path / f"{CANARY}.pem").write_text("no key")
    (tmp_path / f"{CANARY}.pem").chmod(0o644)
    return tmp_path


@pytest.mark.slow
def test_no_log_line_holds_what_an_error_quotes(folder):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    url = folder / "url"
    url.write_text(f"postgresql://{CANARY}:{CANARY}@127.0.0.1:{port}/shop?connect_timeout=2\n")
    url.chmod(0o600)
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_VERSION"}
    done = subprocess.run(  # noqa: S603  (our own program)
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            PROGRAM,
            CANARY,
            folder,
            str(port),
        ],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    said = [json.loads(line) for line in done.stderr.splitlines()]
    events = [line["event"] for line in said if line["event"] not in ("library", "warned")]
    assert events == ["failed", "agent.refused"] * 10 + ["crashed"], done.stdout
    assert CANARY not in done.stderr
    assert all(line["place"].startswith("fondaco.") for line in said if line["event"] == "failed")
