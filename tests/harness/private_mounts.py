"""A mount namespace for the test process, so that what tests mount goes with it, even when it is killed."""

import functools

from skerry.hostd.sys import own_mounts


@functools.cache
def enter() -> None:
    """Move this process there, once."""
    own_mounts.enter()
