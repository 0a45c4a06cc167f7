"""Every error fondaco raises on purpose.

FondacoError
├── ConfigError          a knob, plan or command line that cannot be run
├── DataError            a table, file or row that cannot be read as interactions or items
├── CodecError           bytes or records that are not what the plan announced
├── RoundError           a federated round that could not be completed
├── ModelError           a model artefact that is damaged or does not fit
└── PrivacyError
    ├── LedgerError      a ledger that is damaged, locked or not ours
    └── RefusalError     a request that the plan or its owner does not allow
        └── BudgetError  a release that the plan's or the owner's budget does not cover
"""

NEW_ATTEMPT = "it needs a new attempt"
"""How a silo ends its reason where asking the same again will never help."""


class FondacoError(Exception):
    """Base of every error raised on purpose; its text is one line for a person."""


class ConfigError(FondacoError):
    """A knob, plan or command line that cannot be run."""


class DataError(FondacoError):
    """A table, file or row that cannot be read as interactions or items."""


class CodecError(FondacoError):
    """Bytes or records that are not what the plan announced."""


class RoundError(FondacoError):
    """A federated round that could not be completed."""


class ModelError(FondacoError):
    """A model artefact that is damaged or does not fit."""


class PrivacyError(FondacoError):
    """Base of everything the trusted core refuses."""


class LedgerError(PrivacyError):
    """A ledger that is damaged, locked or not ours."""


class RefusalError(PrivacyError):
    """A request that the plan or its owner does not allow.

    Attributes:
        code: the reason in one word, as the ledger's REFUSAL record names it.
    """

    def __init__(self, text: str, code: str = "refused") -> None:
        super().__init__(text)
        self.code = code


class BudgetError(RefusalError):
    """A release that the plan's or the owner's budget does not cover."""

    def __init__(self, text: str, code: str = "budget") -> None:
        super().__init__(text, code)
