"""The independent verifier: files in, findings out; reads no raw data and trusts no ledger code.

In reading order: `formats` (canonical text, keys, notes), `reading` (files -> records), `plans`
(what a plan promises), `rules` and `witnesses` (one record against all before it), `verify` (a
ledger, then ledgers against each other and against notes), `accounting` (what a customer is
charged), `report` (the answers as a page, JSON and Markdown).
"""
