"""Control groups of sandboxes, on hosts with the unified hierarchy (v2) and on those with one hierarchy per
controller (v1, "hybrid").
"""
