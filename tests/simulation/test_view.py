import shlex
from pathlib import Path

from fondaco.shared import FLOWER_SWITCHES
from fondaco.simulation.view import flwr_command

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
