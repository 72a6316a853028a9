"""Benchmarks: Skerry and its alternatives, measured in one run and compared as ratios. Run with ``make
bench``."""
