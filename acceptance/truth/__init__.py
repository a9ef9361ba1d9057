"""A second reader of tasks, by whoever did not write the author: it knows what a player knows, and the rows.

Nothing here imports the package under test. `world` holds the public record, `reader` understands prompts, `rules`
understands the policy, `facts` works out derived attributes, `deeds` works out actions, and `solver` enumerates every
right outcome by brute force; `wrong` makes outcomes that are not among them.
"""
