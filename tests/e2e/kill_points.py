"""Where processes are killed: a function by its owner and name, before or after its call."""

from fondaco.client import agent as agent_module
from fondaco.client import forgetting as forgetting_module
from fondaco.client import masking as masking_module
from fondaco.client import owner as owner_module
from fondaco.client import testimony as testimony_module
from fondaco.client.agent import SiloAgent
from fondaco.client.erasure import Erasures
from fondaco.client.masking import MaskedSums
from fondaco.server import app as server_app
from fondaco.server.checkpoint import Checkpoints
from fondaco.server.journal import Journals
from fondaco.server.witness import WitnessBook
from fondaco.shared.chain import store as store_module
from fondaco.shared.chain.store import Chain
from fondaco.shared.privacy.ledger import Ledger

LABELS = {
    "before the debit": (Ledger, "debit", "before"),
    "inside of a transaction": (Chain, "_keep", "after"),
    "after the debit": (Ledger, "debit", "after"),
    "before the computation": (agent_module, "clipped_sum", "before"),
    "after the computation": (agent_module, "release", "after"),
    "before the bytes are written": (agent_module, "write_durably", "before"),
    "after the bytes are written": (agent_module, "write_durably", "after"),
    "before the release is recorded": (Ledger, "record_release", "before"),
    "after the release is recorded": (Ledger, "record_release", "after"),
    "before the reply": (SiloAgent, "testify", "before"),
    "before the cosignature is recorded": (Ledger, "note_cosigned", "before"),
    "after the cosignature is recorded": (Ledger, "note_cosigned", "after"),
    "before a replica grows": (testimony_module, "_keep_replica", "before"),
    "after a replica has grown": (testimony_module, "_keep_replica", "after"),
    "before a plan is approved": (Ledger, "approve", "before"),
    "after a plan is approved": (Ledger, "approve", "after"),
    "before a ledger's folder is durable": (store_module, "_sync_folder", "before"),
    "when the model arrives": (SiloAgent, "receive", "after"),
}
COORDINATOR_LABELS = {
    "before heads are kept": (WitnessBook, "save", "before"),
    "after a replica is kept": (WitnessBook, "_append_to", "after"),
    "after heads are kept": (WitnessBook, "save", "after"),
    "before a round is kept": (Checkpoints, "save", "before"),
    "after a round is kept": (Checkpoints, "save", "after"),
    "before the model is kept": (server_app, "save_global_model", "before"),
}

MASKED_LABELS = {
    "before a session is kept": (MaskedSums, "_save", "before"),
    "after a session is kept": (MaskedSums, "_save", "after"),
    "before a session is forgotten": (MaskedSums, "forget", "before"),
    "after a session is forgotten": (MaskedSums, "forget", "after"),
    "before a key is overwritten": (masking_module, "_shred", "before"),
    "after a key is overwritten": (masking_module, "_shred", "after"),
    "before masks are made": (MaskedSums, "masks", "before"),
    "after masks are made": (MaskedSums, "masks", "after"),
    "after the masks are on": (agent_module, "masked", "after"),
    "before the unmasking is recorded": (Ledger, "record_unmask", "before"),
    "after the unmasking is recorded": (Ledger, "record_unmask", "after"),
    "before a step's reply": (MaskedSums, "answer", "before"),
    "after a step's reply": (MaskedSums, "answer", "after"),
    "before a release is vouched for": (SiloAgent, "vouch", "before"),
    "before the journal is kept": (Journals, "save", "before"),
    "after the journal is kept": (Journals, "save", "after"),
    "before the total is kept": (Journals, "save_total", "before"),
    "after the total is kept": (Journals, "save_total", "after"),
    "before the total is read": (Journals, "load_total", "before"),
    "before the journal is removed": (Journals, "remove", "before"),
    "after the journal is removed": (Journals, "remove", "after"),
}
APPROVING = {
    "before the record": (Chain, "_keep", "before"),
    "inside of the transaction": (Chain, "_keep", "after"),
    "after the record": (Ledger, "approve", "after"),
    "after the text": (owner_module, "write_durably", "after"),
}

ERASING = {
    "before the list": (Erasures, "add", "before"),
    "after the list": (Erasures, "add", "after"),
    "before the rows": (forgetting_module, "save_silo", "before"),
    "after the rows": (forgetting_module, "save_silo", "after"),
    "before the record": (Ledger, "note_erasure", "before"),
    "inside of the transaction": (Chain, "_keep", "after"),
    "after the record": (Ledger, "note_erasure", "after"),
}
