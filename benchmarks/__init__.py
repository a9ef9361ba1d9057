"""Measurements: scripts here, their results as JSON under `results/`."""
