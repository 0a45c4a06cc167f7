import json

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from fondaco.server import tensors
from fondaco.server.checkpoint import Checkpoints, Dropped, RoundResult
from fondaco.shared.errors import RoundError

RESULT = RoundResult(
    kind="popularity",
    round_num=1,
    total=np.array([1, -(2**60), 3]),
    present=("a", "ü"),
    dropped=(Dropped("c", 1, "no answer within 1 s"),),
)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", "sha256:plan")


@pytest.fixture
def path(tmp_path, checkpoints):
    checkpoints.save(RESULT)
    return tmp_path / "checkpoints" / "round-1.safetensors"


def test_finished_round_is_read_back_as_it_was(checkpoints, path):
    loaded = checkpoints.load(1)
    assert np.array_equal(loaded.total, RESULT.total)
    assert loaded.total.dtype == np.int64
    assert (loaded.kind, loaded.round_num) == ("popularity", 1)
    assert (loaded.present, loaded.dropped) == (RESULT.present, RESULT.dropped)


def test_unfinished_round_is_none(checkpoints, path):
    assert checkpoints.load(2) is None


def test_round_cut_short_while_writing_is_unfinished(checkpoints, path):
    path.rename(path.with_suffix(".part"))
    assert checkpoints.load(1) is None
    checkpoints.save(RESULT)
    assert checkpoints.load(1) is not None


def test_round_of_another_plan_is_refused(checkpoints, path, tmp_path):
    with pytest.raises(RoundError, match="another plan"):
        Checkpoints(path.parent, "sha256:other").load(1)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100])
def test_damaged_file_is_refused(checkpoints, path, content):
    path.write_bytes(content)
    with pytest.raises(RoundError, match="damaged"):
        checkpoints.load(1)


@pytest.mark.parametrize("cut", [1, 8, 50])
def test_truncated_file_is_refused(checkpoints, path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(RoundError, match="damaged"):
        checkpoints.load(1)


@pytest.mark.parametrize(
    "metadata", [None, {"facts": "{"}, {"facts": "{}"}, {"facts": json.dumps([])}]
)
def test_file_without_its_facts_is_refused(checkpoints, path, metadata):
    save_file({"total": RESULT.total}, path, metadata=metadata)
    with pytest.raises(RoundError, match="damaged"):
        checkpoints.load(1)


def test_full_disk_is_named_and_leaves_the_earlier_round(checkpoints, path, monkeypatch):
    before = path.read_bytes()

    def full(arrays, partial, metadata):
        partial.write_bytes(b"torn")
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError, match=r"round-1.* could not be written .*No space.*make room"):
        checkpoints.save(RESULT)
    assert [entry.read_bytes() for entry in path.parent.iterdir()] == [before]
