"""The coordinator's command line, from keys to a plan that owners sign."""

import json
import stat
import sys
from datetime import UTC, date, datetime, timedelta

import pytest
from builders import ITEMS_CSV, PLAN_CONFIG
from typer.testing import CliRunner

from fondaco.client import cli as client_cli
from fondaco.server import cli
from fondaco.server.plan_view import plan_facts
from fondaco.shared.calibration import Statistic
from fondaco.shared.chain.keys import COORDINATOR, Identity, key_name
from fondaco.shared.plan_text import read_plan, to_toml
from fondaco.shared.provenance import code_digest

SILOS = [f"store {num}" for num in range(4)]
ORDER = ["init", "start", "invite", "register", "plan", "preflight", "run", "status", "metrics"]


def run(*words, app=cli.app, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], terminal_width=200)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.fixture
def fails(monkeypatch, capsys):
    """Run the console script itself; return the one line that it prints."""

    def run_script(*words):
        monkeypatch.setattr(sys, "argv", ["fondaco-server", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        return printed.err

    return run_script


@pytest.fixture
def folder(tmp_path):
    """What a coordinator has before the first plan."""
    (tmp_path / "config.toml").write_text(PLAN_CONFIG)
    (tmp_path / "items.csv").write_text(ITEMS_CSV)
    keys = [Identity.seeded(0, key_name(silo)).public.text() for silo in SILOS]
    (tmp_path / "peers.txt").write_text("\n".join(keys))
    (tmp_path / "coordinator.pub").write_text(Identity.seeded(0, COORDINATOR).public.text())
    return tmp_path


def new(folder, *more, **changed):
    options = {
        "--catalogue": "items.csv",
        "--keys": "peers.txt",
        "--coordinator": "coordinator.pub",
        "--out": "plan.toml",
    }
    options |= {f"--{name}": value for name, value in changed.items()}
    given = [word for name, value in options.items() for word in (name, folder / value)]
    return ["plan", "new", folder / "config.toml", *given, *more]


@pytest.fixture
def plan_file(folder):
    run(*new(folder))
    return folder / "plan.toml"


def test_commands_are_listed_in_the_order_of_use():
    listed = run("--help").output.split("Commands")[1]
    places = [listed.index(f" {command} ") for command in ORDER]
    assert places == sorted(places)


def test_keys_makes_one_key_and_shows_it_ever_after(tmp_path):
    path = tmp_path / "coordinator.pem"
    public = run("keys", "--out", path).stdout.strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = json.loads(run("keys", "--out", path, "--json").stdout)
    assert again == {"key_file": str(path), "key": public}
    assert Identity.load(path, COORDINATOR).public.text() == public


def test_keys_of_somebody_else_are_refused(tmp_path, fails):
    path = tmp_path / "coordinator.pem"
    path.write_text("hello")
    path.chmod(0o600)
    assert "holds no private key" in fails("keys", "--out", path)


def test_new_plan_is_written_with_the_catalogue_that_it_names(plan_file, folder):
    plan = read_plan(plan_file)
    assert plan.mode == "deploy"
    assert list(plan.roster) == SILOS
    assert plan.code_digest == code_digest()
    today = datetime.now(UTC).date()
    assert plan.expires == (today + timedelta(days=90)).isoformat()
    written = folder / "catalogue.json"
    more = json.loads(run(*new(folder, "--json", catalogue=written.name, out="b.toml")).stdout)
    assert more["catalogue_digest"] == plan.catalogue_digest
    assert more["digest"] == plan.digest


def test_last_day_is_as_asked(folder):
    facts = json.loads(run(*new(folder, "--json", "--expires", "2999-01-31")).stdout)
    assert (facts["expires"], facts["expired"]) == ("2999-01-31", False)


def test_example_is_a_config_that_works(folder):
    text = run("plan", "new", "--example").stdout
    (folder / "config.toml").write_text(text)
    facts = json.loads(run(*new(folder, "--json")).stdout)
    assert [release["kind"] for release in facts["releases"]][:2] == ["popularity", "gram"]
    assert facts["promise"]["trust"] == "aggregate"


def test_owners_made_by_the_client_can_sign_it(folder):
    homes = [folder / f"home-{num}" for num in range(4)]
    made = [
        run("keys", "--home", home, "--silo", silo, app=client_cli.app).stdout
        for home, silo in zip(homes, SILOS, strict=True)
    ]
    (folder / "peers.txt").write_text("".join(made))
    run(*new(folder))
    limits = ("--epsilon-per-year", 9, "--epsilon-if-masking-broke", 9)
    pins = [word for key in made[1:] for word in ("--peer", key.strip())]
    pins += ["--peer", (folder / "coordinator.pub").read_text()]
    run("policy", "--home", homes[0], *limits, *pins, app=client_cli.app)
    approve = ("approve", folder / "plan.toml", "--home", homes[0], "--yes", "--json")
    assert json.loads(run(*approve, app=client_cli.app).stdout)["approved"]


def test_show_prints_every_figure_of_the_promise(plan_file):
    text = " ".join(run("plan", "show", plan_file).stdout.split())
    plan = read_plan(plan_file)
    for part in (
        plan.digest,
        "north sea",
        f"{plan.epsilons()['epsilon']:.3f}",
        f"{plan.epsilons()['epsilon_rdp']:.3f}",
        "a customer of 2 silos",
        "a customer of 3 silos",
        "98.2 % sure",
        "1 may side with the server",
        "2 others must have co-signed",
        f"Nothing may be debited after {plan.expires}",
        "names the client code installed here",
        ", ".join(SILOS),
    ):
        assert part in text


def test_show_as_json_holds_the_plans_own_figures(plan_file):
    facts = json.loads(run("plan", "show", plan_file, "--json").stdout)
    plan = read_plan(plan_file)
    epsilons = facts["epsilons"]
    assert epsilons["pld"] == plan.epsilons()["epsilon"]
    assert epsilons["pld"] < epsilons["in_silos"]["2"] < epsilons["in_silos"]["3"]
    assert facts["code_is_installed_here"]
    assert facts["claims"] == "as planned"
    for shown, planned in zip(facts["releases"], plan.releases, strict=True):
        assert shown["noise_multiplier"] == float(planned.noise_multiplier)
        assert (shown["kind"], shown["dim"]) == (planned.kind, planned.dim)
    assert facts["clip_norms"] == {"popularity": 1.0, "gram": 1.0}
    assert sum(release["share"] for release in facts["releases"]) == pytest.approx(1.0)


def test_show_reads_canonical_json_too(plan_file, folder):
    path = folder / "plan.json"
    path.write_text(read_plan(plan_file).to_json())
    facts = [json.loads(run("plan", "show", p, "--json").stdout) for p in (plan_file, path)]
    assert facts[0] == facts[1]


def test_show_says_what_an_agent_would_refuse(make_plan, tmp_path):
    path = tmp_path / "plan.toml"
    public = {"dataset": "[red]evil\x1b[2J"}
    plan = make_plan(expires="2020-01-01", code_digest="sha256:other", public=public)
    path.write_text(to_toml(plan))
    text = " ".join(run("plan", "show", path).stdout.split())
    for part in (
        "EXPIRED on 2020-01-01",
        "OTHER client code",
        "claims nothing",
        "simulated here: ",
    ):
        assert part in text
    assert "[red]evil" in text
    assert "\x1b[2J" not in text


def test_shared_noise_is_masked_in_a_deployment(folder):
    (folder / "config.toml").write_text(PLAN_CONFIG.replace('"silo"', '"aggregate"'))
    run(*new(folder))
    facts = json.loads(run("plan", "show", folder / "plan.toml", "--json").stdout)
    assert facts["promise"]["secure_aggregation"] == "masked-sum"
    assert facts["promise"]["key_agreement"] == "x25519"
    assert facts["promise"]["ring_bits"] in (32, 64)


@pytest.mark.parametrize(
    ("key_agreement", "later"),
    [
        ("x25519", "a later quantum computer could break"),
        ("x25519-mlkem768", "also against a later quantum computer"),
    ],
)
def test_show_tells_what_masks_give_and_what_not(
    make_plan, make_masked, tmp_path, key_agreement, later
):
    plan = make_plan(**make_masked(key_agreement=key_agreement, ring_bits=32))
    (tmp_path / "plan.toml").write_text(to_toml(plan))
    text = " ".join(run("plan", "show", tmp_path / "plan.toml").stdout.split())
    for part in (
        "reads those of at least 9 silos only",
        f"keys by {key_agreement}",
        later,
        "ring of 32 bits",
        "nothing where more silos collude than 1,",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("config.toml", "name = 3 4", "cannot be read as TOML"),
        ("config.toml", PLAN_CONFIG + "epsilom = 1", "did you mean 'privacy.epsilon'"),
        ("config.toml", PLAN_CONFIG.replace("500", "'many'"), "public.declared_users='many'"),
        ("items.csv", "item_id,price\na,cheap\n", "items.csv line 2, column 'price': 'cheap'"),
        ("peers.txt", "hello", "peers.txt line 1: 'hello' is no public key"),
        ("coordinator.pub", "hello", "coordinator.pub line 1"),
        ("catalogue.json", '{"ids": []}', "catalogue.json cannot be read"),
        ("plan.toml", "", "exists and may be signed already"),
    ],
)
def test_mistake_in_a_file_is_one_line_that_names_it(folder, fails, file, text, problem):
    (folder / file).write_text(text)
    assert problem in fails(*new(folder))


def test_other_catalogue_beside_the_plan_is_left_alone(plan_file, folder, fails):
    (folder / "items.csv").write_text(ITEMS_CSV + "f,new,\n")
    before = (folder / "catalogue.json").read_bytes()
    line = fails(*new(folder, out="other.toml"))
    assert "holds another catalogue" in line
    assert (folder / "catalogue.json").read_bytes() == before


@pytest.mark.parametrize(
    ("day", "problem"),
    [("soon", "must be a day"), ("2020-01-31", "is over"), ("2999-02-30", "day")],
)
def test_last_day_that_cannot_be_is_refused(folder, fails, day, problem):
    assert problem in fails(*new(folder, "--expires", day))


@pytest.mark.parametrize("text", ["", "name = 1", "{}", "\xff"])
@pytest.mark.parametrize("name", ["plan.toml", "plan.json"])
def test_file_that_is_no_plan_is_refused(tmp_path, fails, name, text):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    assert "plan" in fails("plan", "show", tmp_path / name)


def test_plan_whose_noise_was_lowered_is_refused(plan_file, fails):
    text = plan_file.read_text()
    noise = read_plan(plan_file).releases[0].stddev_grid
    plan_file.write_text(text.replace(str(noise), str(noise // 2)))
    assert "budget" in fails("plan", "show", plan_file)


def test_term_that_is_no_number_is_refused(make_plan, tmp_path, fails):
    path = tmp_path / "plan.toml"
    path.write_text(to_toml(make_plan(models={"gram": {"clip_norm": "wide"}})))
    assert "gram.clip_norm='wide' is no number" in fails("plan", "show", path)


def test_who_sees_less_learns_less_where_customers_are_sampled(make_plan):
    sampled = Statistic(kind="mf", share=1, dim=7, rounds=2, sampling_ppm=200_000, steps=3)
    plan = make_plan([sampled], trust="silo", epsilon=2.0)
    epsilons = plan_facts(plan, date(2026, 1, 1))["epsilons"]
    assert epsilons["against_server"] == epsilons["pld"] == epsilons["if_masking_broke"]
    assert epsilons["pld"] < epsilons["in_silos"]["2"] < epsilons["in_silos"]["3"]


def test_broken_masking_costs_more_where_noise_is_shared(plan):
    epsilons = plan_facts(plan, date(2026, 1, 1))["epsilons"]
    assert epsilons["against_server"] < epsilons["pld"] < epsilons["if_masking_broke"]
