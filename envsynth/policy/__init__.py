"""The policy: its model, how it samples, and how it learns from groups of trajectories."""
