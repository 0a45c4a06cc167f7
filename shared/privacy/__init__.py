"""The trusted core: everything that stands between a customer's rows and the wire.

Reading order: plan, events, accountant, ledger, contribution, clipping, noise, release.
A number leaves a silo only on this path: `Ledger.debit` -> `ClippedSum` -> `release` -> codec.
"""
