"""Mail: everybody is asked until a deadline, and those that Flower lost are asked again."""

import time
from types import SimpleNamespace

import pytest
from flwr.common.constant import ErrorCode

from fondaco.server import asking
from fondaco.server.asking import LOST, Mail


class FakeGrid:
    """Nodes that answer when told to; messages and replies are only what Mail reads of them."""

    def __init__(self):
        self.nodes, self.sent, self.replies, self._ids = set(), [], [], 0
        self.on_push = lambda message_id, node: None

    def get_node_ids(self):
        return sorted(self.nodes)

    def push_messages(self, messages):
        return [self._push(node) for node in messages]

    def _push(self, node):
        if node not in self.nodes:
            return None
        self._ids += 1
        message_id = f"m{self._ids}"
        self.sent.append((node, message_id))
        self.on_push(message_id, node)
        return message_id

    def pull_messages(self, message_ids):
        now = time.monotonic()
        due = [
            r for r in self.replies if r.at <= now and r.metadata.reply_to_message_id in message_ids
        ]
        for reply in due:
            self.replies.remove(reply)
        return due

    def reply(self, message_id, *, after=0.0, error=None, text="answer"):
        self.replies.append(
            SimpleNamespace(
                at=time.monotonic() + after,
                metadata=SimpleNamespace(reply_to_message_id=message_id),
                has_error=lambda: error is not None,
                error=SimpleNamespace(code=error, reason="Flower's words"),
                text=text,
            )
        )

    def asked(self, node):
        return sum(1 for known, _ in self.sent if known == node)


@pytest.fixture
def grid():
    grid = FakeGrid()
    grid.nodes = {1, 2, 3}
    return grid


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(asking, "PAUSE_S", 0.05)
    monkeypatch.setattr(asking, "POLL_S", 0.01)


def _mail(grid, nodes=(1, 2, 3), deadline_s=20.0, **options):
    """Return node -> reply, in the order they came, and the seconds it took."""
    start = time.monotonic()
    mail = Mail(grid, lambda node: node, nodes, deadline_s=deadline_s, **options)
    heard = list(mail.replies())
    assert len(heard) == len(nodes)
    return dict(heard), time.monotonic() - start


def test_everybody_who_answers_is_heard_once(grid):
    grid.on_push = lambda message_id, node: grid.reply(message_id, text=f"of {node}")
    heard, seconds = _mail(grid)
    assert {node: reply.text for node, reply in heard.items()} == {n: f"of {n}" for n in (1, 2, 3)}
    assert len(grid.sent) == 3
    assert seconds < 5


def test_nobody_is_asked_where_nobody_is_named(grid):
    assert _mail(grid, nodes=())[0] == {}
    assert grid.sent == []


def test_silent_nodes_are_given_up_at_the_deadline(grid):
    grid.on_push = lambda message_id, node: node != 2 and grid.reply(message_id)
    heard, seconds = _mail(grid, deadline_s=2.0)
    assert heard[2] is None
    assert 2.0 <= seconds < 2.2


@pytest.mark.parametrize("code", sorted(LOST))
def test_node_that_flower_lost_is_asked_again_once_it_is_back(grid, code):
    def on_push(message_id, node):
        lost = node == 2 and grid.asked(2) == 1
        grid.reply(message_id, error=code if lost else None)

    grid.on_push = on_push
    heard, seconds = _mail(grid)
    assert not heard[2].has_error()
    assert grid.asked(2) == 2
    assert grid.asked(1) == 1
    assert seconds < 5


def test_node_that_is_not_there_yet_is_asked_when_it_comes(grid):
    grid.nodes = {1, 3}
    come = time.monotonic() + 0.5
    grid.on_push = lambda message_id, node: grid.reply(message_id)
    known = grid.get_node_ids
    grid.get_node_ids = lambda: (
        time.monotonic() > come and grid.nodes.add(2),
        known(),
    )[1]
    heard, seconds = _mail(grid)
    assert not heard[2].has_error()
    assert 0.5 <= seconds < 5


@pytest.mark.parametrize(
    "code", [ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.UNKNOWN, ErrorCode.INVALID_FAB]
)
def test_silo_that_says_no_is_not_asked_again(grid, code):
    grid.on_push = lambda message_id, node: grid.reply(
        message_id, error=code if node == 2 else None
    )
    heard, _ = _mail(grid)
    assert heard[2].error.code == code
    assert grid.asked(2) == 1


def test_node_that_is_silent_for_a_quarter_of_the_deadline_is_asked_again(grid):
    grid.on_push = lambda message_id, node: (
        (node != 2 or grid.asked(2) == 2) and grid.reply(message_id)
    )
    heard, seconds = _mail(grid, deadline_s=4.0)
    assert heard[2] is not None
    assert grid.asked(2) == 2
    assert 1.0 <= seconds < 2.0


def test_node_that_lags_by_a_message_is_found_out_and_asked_twice_from_then_on(grid, monkeypatch):
    """It hands over the answer to a question when the next one comes."""
    monkeypatch.setattr(asking, "LAG_S", 0.2)
    behind, lagging = [], set()

    def on_push(message_id, node):
        if node != 2:
            grid.reply(message_id)
            return
        for earlier in behind:
            grid.reply(earlier)
        behind[:] = [message_id]

    grid.on_push = on_push
    heard, seconds = _mail(grid, deadline_s=8.0, lagging=lagging)
    assert heard[2] is not None
    assert 0.2 <= seconds < 1.0
    assert lagging == {2}
    heard, seconds = _mail(grid, deadline_s=8.0, lagging=lagging)
    assert heard[2] is not None
    assert seconds < 0.2


def test_silent_node_is_asked_no_more_often_than_that(grid):
    grid.on_push = lambda message_id, node: node != 2 and grid.reply(message_id)
    _mail(grid, deadline_s=2.0)
    assert 2 <= grid.asked(2) <= asking.SILENCE


def test_reply_to_both_questions_counts_once(grid):
    """The silo answered the first question late, and the second as well."""
    grid.on_push = lambda message_id, node: grid.reply(message_id, after=1.3 if node == 2 else 0)
    heard, _ = _mail(grid, deadline_s=4.0)
    assert grid.asked(2) == 2
    assert len(heard) == 3
    assert heard[2] is not None


def test_late_loss_of_a_question_does_not_undo_an_answer(grid):
    def on_push(message_id, node):
        if node == 2 and grid.asked(2) == 1:
            grid.reply(message_id, after=1.5, error=ErrorCode.NODE_UNAVAILABLE)
        else:
            grid.reply(message_id, after=2.0 if node == 3 else 0)

    grid.on_push = on_push
    heard, _ = _mail(grid, deadline_s=4.0)
    assert not heard[2].has_error()
    assert not heard[3].has_error()


def test_node_that_stays_away_is_given_up_with_flowers_words(grid, monkeypatch):
    monkeypatch.setattr(asking, "RETURN_S", 0.5)

    def on_push(message_id, node):
        if node == 2:
            grid.nodes.discard(2)
        grid.reply(message_id, error=ErrorCode.NODE_UNAVAILABLE if node == 2 else None)

    grid.on_push = on_push
    heard, seconds = _mail(grid)
    assert heard[2].error.reason == "Flower's words"
    assert 0.5 <= seconds < 5


def test_node_that_flower_takes_no_message_for_is_given_up_before_the_deadline(grid, monkeypatch):
    """Its silo was removed, or has another node key: the old node never comes back."""
    monkeypatch.setattr(asking, "RETURN_S", 0.5)
    grid.nodes = {1, 3}
    grid.on_push = lambda message_id, node: grid.reply(message_id)
    heard, seconds = _mail(grid)
    assert heard[2] is None
    assert 0.5 <= seconds < 2


def test_node_that_came_back_is_waited_for_however_long_it_was_lost_before(grid, monkeypatch):
    """It is at work on the second question; giving it up would throw its release away."""
    monkeypatch.setattr(asking, "RETURN_S", 0.3)

    def on_push(message_id, node):
        if node == 2 and grid.asked(2) == 1:
            grid.reply(message_id, error=ErrorCode.NODE_UNAVAILABLE)
        else:
            grid.reply(message_id, after=1.5 if node == 2 else 0)

    grid.on_push = on_push
    heard, seconds = _mail(grid)
    assert not heard[2].has_error()
    assert 1.5 <= seconds < 5


def test_node_that_is_lost_at_the_deadline_keeps_flowers_words(grid):
    grid.on_push = lambda message_id, node: grid.reply(
        message_id, error=ErrorCode.NODE_UNAVAILABLE if node == 2 else None
    )
    heard, seconds = _mail(grid, deadline_s=1.0)
    assert heard[2].error.reason == "Flower's words"
    assert seconds < 1.2


def test_enough_leaves_a_tenth_of_the_time_for_the_rest(grid):
    grid.on_push = lambda message_id, node: node == 1 and grid.reply(message_id)
    heard, seconds = _mail(grid, deadline_s=10.0, enough=lambda: True)
    assert [node for node, reply in heard.items() if reply is not None] == [1]
    assert 1.0 <= seconds < 1.3


def test_enough_that_holds_again_and_again_does_not_stretch_the_time(grid):
    grid.nodes = set(range(1, 31))
    grid.on_push = lambda message_id, node: grid.reply(message_id, after=node * 0.1)
    _, seconds = _mail(grid, tuple(range(1, 31)), deadline_s=10.0, enough=lambda: True)
    assert seconds < 1.5


def test_enough_does_not_lengthen_a_deadline_that_is_near(grid):
    grid.on_push = lambda message_id, node: node == 1 and grid.reply(message_id, after=0.95)
    _, seconds = _mail(grid, deadline_s=1.0, enough=lambda: True)
    assert seconds < 1.1


def test_slow_polls_do_not_break_the_deadline(grid):
    """Others' replies come in all the time; the silent one still ends at the deadline."""
    grid.on_push = lambda message_id, node: None
    pull = grid.pull_messages
    grid.pull_messages = lambda ids: (time.sleep(0.15), pull(ids))[1]
    _, seconds = _mail(grid, deadline_s=2.0)
    assert seconds < 2.2
