"""Event loops of the tests below."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

_ON_UVLOOP = {"test_agent_channel.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What uses `skerry.control` without a daemon runs on the loop that the daemons have."""
    if item.path.name in _ON_UVLOOP:
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
