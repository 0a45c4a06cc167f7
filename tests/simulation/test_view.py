import shlex
from pathlib import Path

from fondaco.shared import FLOWER_SWITCHES
from fondaco.simulation.result import plan_facts, privacy_facts
from fondaco.simulation.view import budget_table, flwr_command, plan_table

ROOT = Path(__file__).parents[2]


def test_flwr_command_is_one_shell_command_that_is_complete(tmp_path):
    words = shlex.split(flwr_command(tmp_path / "my runs", 12))
    assert words[0] == "env"
    start = words.index("flwr")
    assert words[start : start + 4] == ["flwr", "run", str(ROOT), "--stream"]
    assert f'workspace="{tmp_path}/my runs"' in words
    assert "num-supernodes=12 client-resources-num-cpus=1" in words


def test_flwr_command_keeps_flower_and_ray_quiet_and_at_home(tmp_path):
    words = shlex.split(flwr_command(tmp_path, 2))
    for name, value in FLOWER_SWITCHES.items():
        assert f"{name}={value}" in words
    assert {"RAY_USAGE_STATS_ENABLED=0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"} <= set(words)


def test_budget_table_says_how_shares_are_hidden(tiny_run):
    caption = str(budget_table(tiny_run.result).caption)
    assert "secure aggregation: masked-sum (x25519, ring of 32 bits); claims: none" in caption
    bare = {**tiny_run.result, "plan": {"key_agreement": "", "ring_bits": 0}}
    assert "secure aggregation: masked-sum;" in str(budget_table(bare).caption)


def test_plan_table_says_how_shares_would_be_hidden(tiny_run):
    plan = tiny_run.prepared.plan
    facts = {"privacy": privacy_facts(plan), "plan": plan_facts(plan), "releases": []}
    assert "secure aggregation masked-sum (x25519, ring of 32" in str(plan_table(facts).caption)
