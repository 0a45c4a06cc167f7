"""An in-process Flower Grid: the same ServerApp and ClientApp, no Ray, no network.

Every private touch of flwr that this engine needs is in this file, and
`tests/contracts/test_grid.py` holds that they still work: `TaskIdentity` and `Message.metadata`
are filled in by Flower's SuperLink otherwise.
"""

from collections.abc import Iterable, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_RUN_ID = 1
_SERVER_NODE = 1
_FIRST_SILO_NODE = 1000


class InProcessGrid(Grid):
    """Hands each message to a ClientApp when its reply is pulled, one at a time.

    Replies are therefore never held together: memory does not grow with the silos. Order is
    that of the messages, so equal inputs give equal results bit for bit.

    Args:
        client_app: what every silo runs.
        n_silos: virtual nodes; `node_config["partition-id"]` counts them from 0.
        serialise: pass every message through Flower's bytes, as a network would.
    """

    def __init__(self, client_app: ClientApp, n_silos: int, *, serialise: bool = False) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, _RUN_ID, _SERVER_NODE
        self._run = Run.create_empty(_RUN_ID)
        self._client_app = client_app
        self._serialise = serialise
        self._contexts = {
            _FIRST_SILO_NODE + num: _context(
                _FIRST_SILO_NODE + num, {"partition-id": num, "num-partitions": n_silos}
            )
            for num in range(n_silos)
        }
        self._pending: dict[str, Message] = {}
        self._sent = 0

    def set_run(self, run: Run) -> None:
        """Remember the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run, of which a simulation has one."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message to a silo."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return all silos' nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages and return their ids."""
        ids = []
        for message in messages:
            self._stamp(message)
            self._pending[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run the first queued message among `message_ids` and return its reply."""
        for message_id in message_ids:
            message = self._pending.pop(message_id, None)
            if message is not None:
                return [self._deliver(message)]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return the replies to all `messages`; nothing here can time out."""
        del timeout
        ids = self.push_messages(messages)
        return [reply for message_id in ids for reply in self.pull_messages([message_id])]

    def _deliver(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            reply = self._client_app(self._travel(message), context)
        except Exception as error:
            failure = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error))
            reply = Message(failure, reply_to=message)
        self._stamp(reply)
        return self._travel(reply)

    def _stamp(self, message: Message) -> None:
        self._sent += 1
        message.metadata.__dict__["_message_id"] = f"{self._sent:032x}"

    def _travel(self, message: Message) -> Message:
        if not self._serialise:
            return message
        objects = get_all_nested_objects(message)
        contents = {object_id: part.deflate() for object_id, part in objects.items()}
        arrived = inflate_object_from_contents(message.object_id, contents)
        if not isinstance(arrived, Message):
            raise TypeError(f"a message arrived as {type(arrived).__name__}")
        arrived.metadata.__dict__["_message_id"] = message.metadata.message_id
        return arrived


def run_server_app(app: ServerApp, grid: Grid) -> None:
    """Run `app` over `grid` to its end."""
    app(grid, _context(_SERVER_NODE, {}))


def _context(node_id: int, node_config: Mapping[str, bool | float | int | str]) -> Context:
    return Context(
        run_id=_RUN_ID,
        node_id=node_id,
        node_config=dict(node_config),
        state=RecordDict(),
        run_config={},
    )
