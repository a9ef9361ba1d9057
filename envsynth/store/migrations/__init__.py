"""The Alembic environment of the store: `env.py` runs the revisions in `versions` on a connection it is given."""
