"""What runs inside the jail. Pure standard library; started from `boot.py` in a fresh interpreter, never in the host.

The host imports only `frames` and `syscalls` from here, for constants and checks that both sides share.
"""
