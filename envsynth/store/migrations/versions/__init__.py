"""Revisions of the store's tables, one file each; a released one is never edited."""
