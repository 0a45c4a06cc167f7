"""From kits to recommendations between real processes, with real keys: what the guide tells."""

import csv
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fondaco.server.home import ServerHome
from fondaco.shared.supervisor import dies_with_us
from fondaco.simulation.loopback import environment, free_port

BIN = Path(sys.executable).parent
SILOS = ("alpha", "beta", "gamma")
CANARY = "canary-customer-4711"
CONFIG = """
name = "winter-market"
models = ["gram"]
[public]
declared_users = 120
[privacy]
epsilon = 8.0
head = 20
"""
MOST_OWNER_COMMANDS = 10

pytestmark = pytest.mark.slow


class Town:
    """Everybody's folders and running programs under one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.programs = {}
        self.owner_commands = []

    def say(self, program, *arguments, code=0):
        """What a command prints; it must end with `code`."""
        done = subprocess.run(  # noqa: S603  (our own programs)
            [str(BIN / program), *map(str, arguments)],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == code, f"{program} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def owner(self, silo, *arguments, code=0):
        """What an owner's command prints; those of the first one are counted."""
        if silo == SILOS[0]:
            self.owner_commands.append(arguments[0])
        command, *rest = arguments
        return self.say("fondaco-client", command, *rest, "--home", silo, code=code)

    def start(self, name, program, *arguments):
        """Start a program that goes on."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.programs[name] = subprocess.Popen(  # noqa: S603
                [*dies_with_us(), str(BIN / program), *map(str, arguments)],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self):
        """End whatever goes on."""
        for program in reversed(self.programs.values()):
            program.send_signal(signal.SIGTERM)
            program.wait(60)

    def logs(self):
        """All that our programs and Flower's have said so far."""
        paths = [*self.folder.glob("*.log"), *self.folder.glob("server/logs/*.log")]
        return "".join(path.read_text(errors="replace") for path in paths)


def _write_tables(folder):
    rng = np.random.default_rng(7)
    items = [f"item-{num:02d}" for num in range(40)]
    with (folder / "items.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "text", "category"])
        rows.writerows(
            [item, f"thing {item}", f"group-{num % 4}"] for num, item in enumerate(items)
        )
    for silo in SILOS:
        with (folder / f"{silo}-orders.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["customer", "sku", "sold_at"])
            for num in range(40):
                customer = f"{CANARY}-{silo}-{num}"
                for day, item in enumerate(rng.choice(40, size=8, replace=False)):
                    rows.writerow([customer, items[item], f"2026-0{1 + num % 8}-{1 + day:02d}"])


def _joined(town):
    """Coordinator and owners know each other, and a plan is signed by all."""
    address = f"127.0.0.1:{free_port()}"
    town.say("fondaco-server", "init", "--home", "server", "--name", "town", "--address", address)
    for silo in SILOS:
        kit = f"{silo}.kit"
        town.say("fondaco-server", "invite", silo, "--home", "server", "--out", kit)
        town.owner(silo, "init", "--kit", kit, "--courier-port", free_port(), "--yes")
        town.say("fondaco-server", "register", f"{silo}.registration.json", "--home", "server")
    (town.folder / "plan.conf.toml").write_text(CONFIG)
    plan = ("plan.conf.toml", "--catalogue", "items.csv", "--home", "server")
    town.say("fondaco-server", "plan", "new", *plan)
    for silo in SILOS:
        terms = ("--plan", "plan.toml", "--catalogue", "catalogue.json")
        invite = ("invite", silo, "--home", "server", *terms, "--out", f"{silo}-2.kit")
        town.say("fondaco-server", *invite)
    with ThreadPoolExecutor() as owners:
        list(owners.map(lambda silo: _approved(town, silo), SILOS))


def _approved(town, silo):
    """An owner has set limits, read rows and signed the plan."""
    town.owner(silo, "init", "--kit", f"{silo}-2.kit", "--yes")
    town.owner(silo, "policy", "--epsilon-per-year", 20, "--epsilon-if-masking-broke", 30)
    (town.folder / silo / "source.toml").write_text(
        f'[source]\nkind = "csv"\npath = "{town.folder / silo}-orders.csv"\n'
        '[columns]\nuser_id = "customer"\nitem_id = "sku"\ntime = "sold_at"\n'
    )
    town.owner(silo, "load")
    town.owner(silo, "approve", town.folder / silo / "kit" / "plan.toml", "--yes")


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A town after its first run."""
    town = Town(tmp_path_factory.mktemp("town"))
    _write_tables(town.folder)
    try:
        _joined(town)
        town.start("coordinator", "fondaco-server", "start", "--home", "server")
        for silo in SILOS:
            town.start(silo, "fondaco-client", "run", "--home", silo)
        _until_connected(town)
        plan = ("plan.toml", "--home", "server")
        town.say("fondaco-server", "preflight", *plan)
        town.spent_before = json.loads(town.owner("beta", "status", "--json"))
        _run_until_killed(town, plan)
        town.ran = json.loads(town.say("fondaco-server", "run", *plan, "--json"))
        yield town
    finally:
        town.stop()


def _until_connected(town):
    """Doctor says so once the SuperNode is registered and everything else is ready."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        if all((town.folder / f"{silo}-courier" / "agent.sock").is_socket() for silo in SILOS):
            return
        time.sleep(1)
    pytest.fail(town.logs()[-4000:])


def _run_until_killed(town, plan):
    """Give the run to Flower; the command dies by `kill -9` while silos are being asked."""
    town.start("run", "fondaco-server", "run", *plan)
    until = time.monotonic() + 180
    while time.monotonic() < until:
        for status in (town.folder / "server" / "runs").glob("*/status.json"):
            if json.loads(status.read_text())["phases"] >= 2:
                assert town.programs["run"].poll() is None
                town.programs["run"].kill()
                return
        time.sleep(0.2)
    pytest.fail(town.logs()[-4000:])


def test_run_finishes_with_all_silos_and_says_what_crossed(town):
    assert town.ran["state"] == "finished"
    assert [silo["present"] for silo in town.ran["silos"]] == [True, True, True]
    assert [done["kind"] for done in town.ran["rounds"]] == ["popularity", "gram"]
    assert all(traffic["sent"] > 0 for done in town.ran["rounds"] for traffic in done["traffic"])


def test_masked_round_takes_five_questions(town):
    assert [done["phases"] for done in town.ran["rounds"]][1] == 5


def test_preflight_spent_nothing(town):
    assert town.spent_before["rounds"] == []


def test_owner_needs_few_commands_until_ready(town):
    """Two kits, limits, rows, signature, run; installation and doctor come on top."""
    assert town.owner_commands[:5] == ["init", "init", "policy", "load", "approve"]
    assert len(town.owner_commands[:5]) + len(["pip", "doctor", "run"]) <= MOST_OWNER_COMMANDS


def test_doctor_finds_a_deployed_silo_well(town):
    facts = json.loads(town.owner("alpha", "doctor", "--json"))
    assert [check for check in facts["checks"] if check["state"] == "fail"] == []


@pytest.mark.parametrize("silo", SILOS)
def test_ledger_holds_for_an_auditor(town, silo):
    export = f"{silo}.ledger.jsonl"
    town.owner(silo, "ledger", "--export", export)
    (witness,) = (town.folder / "server" / "runs").glob("*/witness")
    town.say("fondaco-audit", "verify", export, "--plan", "plan.toml", "--witness", witness)


def test_owner_recommends_to_everybody_with_what_each_part_gave(town):
    town.owner("alpha", "recommend", "--all", "--out", "lists.csv", "-n", "5")
    with (town.folder / "lists.csv").open() as file:
        rows = list(csv.DictReader(file))
    customers = {row["customer"] for row in rows}
    assert len(customers) == 40
    assert {"score", "global", "own", "content"} <= set(rows[0])


def test_no_log_line_names_a_customer(town):
    assert CANARY not in town.logs()


def test_second_run_of_a_finished_plan_spends_nothing(town):
    before = json.loads(town.owner("beta", "ledger", "--json"))
    again = json.loads(town.say("fondaco-server", "run", "plan.toml", "--home", "server", "--json"))
    after = json.loads(town.owner("beta", "ledger", "--json"))
    debits = [[r for r in facts["records"] if r["type"] == "DEBIT"] for facts in (before, after)]
    assert again["state"] == "finished"
    assert len(debits[0]) == len(debits[1]) == 2


HOSTILE = """
from pathlib import Path

Path({proof!r}).write_text("it ran")
for home in Path({folder!r}).glob("*"):
    for name in ("identity.pem", "owner.json"):
        if (home / name).is_file():
            Path({proof!r}).write_text((home / name).read_text())

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()


@server.main()
def main(grid, context):
    Path({proof!r}).write_text("the server ran")
"""


def _submit_hostile(town, proof):
    """Send a bundle with code of its own, under the name of a run that was prepared."""
    (town.folder / "evil").mkdir()
    code = HOSTILE.format(proof=str(proof), folder=str(town.folder))
    (town.folder / "evil" / "evil.py").write_text(code)
    (town.folder / "evil" / "pyproject.toml").write_text(
        '[project]\nname = "fondaco"\nversion = "9.9.9"\nlicense = "Apache-2.0"\n'
        '[tool.flwr.app]\npublisher = "fondaco"\n'
        '[tool.flwr.app.components]\nserverapp = "evil:server"\nclientapp = "evil:client"\n'
        '[tool.flwr.app.config]\nrun = ""\ntask = "run"\nsigma = 1.0\n'
    )
    (run,) = (town.folder / "server" / "runs").iterdir()
    seen = run / "preflight.json"
    before = seen.stat().st_mtime_ns
    config = f'run="{run.name}" task="preflight" sigma=0.0'
    subprocess.run(  # noqa: S603  (Flower's program)
        [str(BIN / "flwr"), "run", "evil", "fondaco", "--run-config", config],
        cwd=town.folder,
        env=ServerHome.open(town.folder / "server").environment(),
        check=True,
        capture_output=True,
        timeout=120,
    )
    until = time.monotonic() + 300
    while time.monotonic() < until:
        told = json.loads(seen.read_text()) if seen.stat().st_mtime_ns != before else {}
        if told.get("state") in ("finished", "failed"):
            return told["state"]
        time.sleep(1)
    pytest.fail(town.logs()[-4000:])


def test_hostile_bundle_runs_nowhere_and_changes_nothing(town):
    """Our launchers run our code under its name: both ends rehearse, as if it were not there."""
    proof = town.folder / "proof.txt"
    before = json.loads(town.owner("alpha", "ledger", "--json"))["records"]
    assert _submit_hostile(town, proof) == "finished"
    assert not proof.exists()
    unpacked = [*town.folder.glob("*-courier/flwr/apps/*"), *town.folder.glob("server/flwr/apps/*")]
    assert unpacked == []
    after = json.loads(town.owner("alpha", "ledger", "--json"))["records"]
    spending = ("DEBIT", "RELEASE", "PLAN", "POLICY")
    kept = [[r for r in records if r["type"] in spending] for records in (before, after)]
    assert kept[0] == kept[1]


def test_silo_that_left_ends_the_federation_in_words(town):
    """Last: alpha withdraws; three silos were needed."""
    town.owner("alpha", "leave")
    said = town.say("fondaco-server", "preflight", "plan.toml", "--home", "server", code=1)
    assert "the plan needs 3" in said
