"""Measurements of kernels on a GPU: each checks its operator first, and refuses to time what is wrong."""
