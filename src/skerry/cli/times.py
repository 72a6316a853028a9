"""Times as people read them."""

import time
from datetime import datetime


def now_ms() -> int:
    """The clock of this machine, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def show_time(at_ms: int) -> str:
    """Local time to the second."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
