"""The policy: its tokens and template; torch-free modules first, so that data can be prepared without torch."""
