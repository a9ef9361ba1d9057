"""The procedural author: no model, no network; mechanisms with dynamics and exact solvers, one typed task program."""
