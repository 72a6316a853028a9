"""One client on one sandbox."""

import asyncio

from skerry.control.agent import AgentClient
from skerry.control.sandbox import Sandbox
from skerry.lifecycle.events import PrimaryLeft
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import EndReason


class Attachment:
    """What an adapter holds while its client is connected. It ends with `detach`.

    Args:
        primary: The sandbox, if it is a session, ends with this client.
    """

    def __init__(self, sandbox: Sandbox, *, primary: bool) -> None:
        self._sandbox = sandbox
        self._detached = False
        self.primary = primary

    @property
    def sandbox_id(self) -> SandboxId:
        """The sandbox."""
        return self._sandbox.sandbox_id

    @property
    def agent(self) -> AgentClient:
        """Its agent."""
        return self._sandbox.agent

    @property
    def stop_at_ms(self) -> int | None:
        """When it ends, as things stand; None for a session."""
        return self._sandbox.life.stop_at_ms

    @property
    def ended(self) -> "asyncio.Future[EndReason]":
        """Done when the sandbox has ended, for whatever reason. Pending calls to the agent have failed by
        then.
        """
        return self._sandbox.ended

    async def detach(self, *, clean: bool) -> None:
        """The client is gone. Idempotent.

        A session whose primary said goodbye is ended now; one whose primary's connection broke, after a short
        grace.

        Args:
            clean: The client said goodbye.
        """
        if not self._detached:
            self._detached = True
            if self.primary:
                self._sandbox.tell(PrimaryLeft(clean=clean))
