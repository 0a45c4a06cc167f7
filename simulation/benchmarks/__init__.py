"""Measurements behind README's figures; each is `python -m fondaco.simulation.benchmarks.X`."""
