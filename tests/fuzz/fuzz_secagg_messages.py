"""Messages of masked sums: one spelling each, and nothing else is let in."""

import json

from fuzzing import Choices, as_bytes, bent, bent_tree, spelled
from message_samples import KINDS, samples

from fondaco.shared.errors import CodecError

BLOBS = {kind: message.to_bytes() for kind, message in samples().items()}
ALL = tuple(BLOBS.values())


def target(data):
    choices = Choices(data)
    kind = choices.pick(KINDS)
    match choices.number(4):
        case 0:
            blob = choices.rest()
        case 1:
            blob = bent(BLOBS[kind], choices, *ALL)
        case _:
            blob = as_bytes(spelled(bent_tree(json.loads(BLOBS[kind]), choices), choices))
    try:
        message = kind.from_bytes(blob)
    except CodecError:
        return
    assert message.to_bytes() == blob
    assert kind.from_bytes(blob) == message
