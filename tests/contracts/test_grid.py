"""What `simulation/grid.py` relies on inside of flwr: fails when a new flwr moves it."""

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.task_identity import TaskIdentity

from fondaco.shared.parts import from_message, to_message
from fondaco.simulation.grid import InProcessGrid, run_server_app


def _echo_app(seen=None):
    app = ClientApp()

    @app.train("release")
    def train(message: Message, context: Context) -> Message:
        if seen is not None:
            seen.append(context.node_config["partition-id"])
        blob = from_message(message.content).record
        return Message(to_message(blob[::-1]), reply_to=message)

    @app.query("status")
    def fail(message: Message, context: Context) -> Message:
        raise RuntimeError("out of service")

    return app


def _messages(grid, n, message_type="train.release", blob=b"\x00\xffabc"):
    content = to_message(blob)
    return [grid.create_message(content, message_type, node, "g") for node in grid.get_node_ids()][
        :n
    ]


@pytest.fixture(params=[False, True], ids=["by reference", "serialised"])
def grid(request):
    return InProcessGrid(_echo_app(), 3, serialise=request.param)


def test_grid_answers_every_message_with_the_apps_bytes(grid):
    replies = list(grid.send_and_receive(_messages(grid, 3)))
    assert [from_message(reply.content)[0] for reply in replies] == [b"cba\xff\x00"] * 3


def test_serialised_grid_gives_the_same_bytes_as_one_by_reference():
    blob = bytes(range(256)) * 500
    answers = []
    for serialise in (False, True):
        grid = InProcessGrid(_echo_app(), 2, serialise=serialise)
        replies = grid.send_and_receive(_messages(grid, 2, blob=blob))
        answers.append([from_message(reply.content) for reply in replies])
    assert answers[0] == answers[1]


def test_replies_name_the_message_they_answer_and_come_from_its_silo(grid):
    messages = _messages(grid, 3)
    ids = list(grid.push_messages(messages))
    for message, message_id in zip(messages, ids, strict=True):
        (reply,) = grid.pull_messages([message_id])
        assert reply.metadata.reply_to_message_id == message_id
        assert reply.metadata.src_node_id == message.metadata.dst_node_id
        assert reply.metadata.message_id != message_id


def test_message_ids_are_distinct_and_the_same_in_every_run():
    runs = []
    for _ in range(2):
        grid = InProcessGrid(_echo_app(), 3)
        runs.append(list(grid.push_messages(_messages(grid, 3))))
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 3


def test_grid_runs_a_silo_only_when_its_reply_is_pulled():
    seen = []
    grid = InProcessGrid(_echo_app(seen), 3)
    ids = list(grid.push_messages(_messages(grid, 3)))
    assert seen == []
    assert len(list(grid.pull_messages(ids))) == 1
    assert seen == [0]


def test_grid_gives_every_reply_once(grid):
    ids = list(grid.push_messages(_messages(grid, 1)))
    assert len(list(grid.pull_messages(ids))) == 1
    assert list(grid.pull_messages(ids)) == []
    assert list(grid.pull_messages(["unknown"])) == []


def test_silo_that_raises_answers_with_an_error(grid):
    (reply,) = grid.send_and_receive(_messages(grid, 1, "query.status"))
    assert reply.has_error()
    assert "out of service" in reply.error.reason


def test_message_type_that_no_silo_knows_answers_with_an_error(grid):
    (reply,) = grid.send_and_receive(_messages(grid, 1, "train.unknown"))
    assert reply.has_error()


def test_nodes_are_numbered_as_partitions():
    seen = []
    grid = InProcessGrid(_echo_app(seen), 4)
    list(grid.send_and_receive(_messages(grid, 4)))
    assert seen == [0, 1, 2, 3]


def test_server_app_runs_over_the_grid(grid):
    app, heard = ServerApp(), []

    @app.main()
    def main(its_grid, context: Context) -> None:
        heard.extend(its_grid.send_and_receive(_messages(its_grid, 3)))

    run_server_app(app, grid)
    assert len(heard) == 3


def test_flower_still_has_the_private_places_that_the_grid_fills_in():
    grid = InProcessGrid(_echo_app(), 1)
    assert (TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id) == (1, 1, 1)
    message = grid.create_message(RecordDict({"c": ConfigRecord()}), "train", 1000, "g")
    assert "_message_id" in message.metadata.__dict__
    list(grid.push_messages([message]))
    assert message.metadata.message_id == f"{1:032x}"
    assert grid.run.run_id == 1
