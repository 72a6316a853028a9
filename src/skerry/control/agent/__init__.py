"""The host's end of the agent channel: one `AgentLink` per sandbox, and an `AgentClient` that speaks over it.

See `docs/agent-channel.md`. Everything that arrives is hostile; the bounds are named where they are kept.
"""

from skerry.control.agent.client import AgentClient
from skerry.control.agent.files import FileWriter
from skerry.control.agent.input import InputStream
from skerry.control.agent.link import AgentLink
from skerry.control.agent.listener import PacedListener
from skerry.control.agent.output import Gap, OutputStream
from skerry.control.agent.processes import Exit, Process
from skerry.control.agent.streams import StreamReset

__all__ = [
    "AgentClient",
    "AgentLink",
    "Exit",
    "FileWriter",
    "Gap",
    "InputStream",
    "OutputStream",
    "PacedListener",
    "Process",
    "StreamReset",
]
