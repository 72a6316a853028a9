"""``python -m skerry``: how `skerry up` starts the daemons."""

from skerry.main import run

run()
