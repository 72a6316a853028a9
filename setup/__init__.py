"""Installs what Skerry needs on a Debian or Ubuntu machine, from a checkout: `python3 -m setup --help`.

It runs before the virtual environment exists, so it imports nothing but the standard library.
"""
