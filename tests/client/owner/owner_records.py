"""What an owner's ledger holds."""

from fondaco.shared.chain.store import Record, check_links


def types_of(owner):
    with owner.ledger() as ledger:
        check_links(map(Record.from_line, ledger.chain.lines()))
        return [record["type"] for record in ledger.records()]


def lines_of(owner):
    with owner.ledger() as ledger:
        return ledger.chain.lines()
