"""These tests run on the event loop that the product uses."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from skerry.control.agent import AgentClient, AgentLink
from tests.harness.agent_peer import Peer


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every asynchronous test below on uvloop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def link() -> AsyncIterator[AgentLink]:
    """A link without a connection."""
    link = AgentLink(sandbox_id="sbx_test", epoch=7, reattach_window_ms=60_000)
    yield link
    link.close("test is over")
    Peer.close_all()
    await asyncio.sleep(0)


@pytest.fixture
async def client(link: AgentLink) -> AgentClient:
    """A client of `link`."""
    return AgentClient(link)


@pytest.fixture
async def peer(link: AgentLink) -> Peer:
    """An agent that is connected to `link` and has shaken hands."""
    return await Peer.connect(link)
