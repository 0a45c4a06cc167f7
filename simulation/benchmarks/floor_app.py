"""A Flower app that does nothing: what a question to all nodes costs without any of ours.

`machines` puts this file into a bundle and has Flower's own programs run it.
"""

import json
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

SIZE = 10_000
client_app = ClientApp()
server_app = ServerApp()


@client_app.query()
def echo(message: Message, context: Context) -> Message:
    """Return what came."""
    del context
    return Message(message.content, reply_to=message)


@server_app.main()
def ask(grid: Grid, context: Context) -> None:
    """Ask all nodes as often as the run config says, and write down how long each time took."""
    seconds = []
    nodes = list(grid.get_node_ids())
    for _ in range(int(context.run_config["phases"])):
        content = RecordDict({"floor": ConfigRecord({"blob": bytes(SIZE)})})
        messages = [Message(content, node, MessageType.QUERY) for node in nodes]
        start = time.perf_counter()
        replies = list(grid.send_and_receive(messages, timeout=600))
        seconds.append(round(time.perf_counter() - start, 3))
        if len(replies) != len(nodes) or any(reply.has_error() for reply in replies):
            raise RuntimeError("a node did not answer")
    out = Path(str(context.run_config["out"]))
    partial = out.with_suffix(".part")
    partial.write_text(json.dumps(seconds), encoding="utf-8")
    partial.replace(out)
