"""What Skerry remembers: SQLite in the data directory. It is intent, written before the effect; the kernel is
the truth about what runs.
"""
