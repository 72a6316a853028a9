"""egressd's broker: knows what each sandbox may do and holds its secrets, and never parses what a sandbox
sends.
"""
