"""Masked sums: the coordinator learns the sum over silos and no silo's own numbers."""
