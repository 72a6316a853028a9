"""The life of a sandbox as a pure state machine, and what to do when records and reality are compared. No
clock, no I/O.
"""
