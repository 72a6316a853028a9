"""The streams of one sandbox: who gets which frame, and what happens to all of them."""

from collections import deque

from skerry.control.agent.input import PIECE_BYTES, InputStream
from skerry.control.agent.output import OutputStream
from skerry.control.agent.streams import (
    FLOOR_BYTES,
    INPUT_POOL_BYTES,
    OUTPUT_POOL_BYTES,
    WINDOW_BYTES,
    Channel,
    MakeError,
    Pool,
    StreamReset,
)
from skerry.protocol import frames
from skerry.protocol.frames import Attach, Credit, Data, End, Gap, Reset
from skerry.protocol.messages import ProtocolError

MAX_UNCLAIMED = 1024
_CLOSED_FILES = 64
"""As many file reads as the agent allows at once."""


class StreamTable:
    """Every stream that frames may still come for.

    Memory: the two pools (16 MiB of output, 32 MiB of input, and 4 KiB for each stream beyond that).

    Attributes:
        era: Counts agents: stream IDs are those of one agent.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.output_pool = Pool(OUTPUT_POOL_BYTES)
        self.input_pool = Pool(INPUT_POOL_BYTES)
        self._outputs: dict[int, OutputStream] = {}
        self._inputs: dict[int, InputStream] = {}
        self._newest = 0  # the highest ID that an answer has named
        # Input streams that the agent asked for before the answer that names them had come (again).
        self._unclaimed: dict[int, Attach] = {}
        self._answers_missing = False
        # Files that were read to the end or given up on this connection: the agent may not have heard of it.
        self._closed_files: deque[int] = deque(maxlen=_CLOSED_FILES)
        self._waiting: dict[InputStream, None] = {}  # in order
        self._make_end: MakeError | None = None
        self.era = 0

    # Streams come and go.

    def credit_for_new(self, streams: int, unanswered: int) -> int:
        """Credit to offer for each of the output streams of a request.

        The more requests are under way, the less: what they were offered is not in the pool yet.
        """
        free = self.output_pool.room(0)
        return max(FLOOR_BYTES, min(WINDOW_BYTES, free // (2 * streams * (1 + unanswered))))

    def new_output(
        self, id_: int, *, credit: int, is_file: bool = False, size: int | None = None, again: bool = False
    ) -> OutputStream:
        """A stream that an answer named; `again`: the request had to be sent again before it was answered."""
        self._take_id(id_)
        stream = OutputStream(id_, owner=self, credit=credit, is_file=is_file, size=size)
        self._outputs[id_] = stream
        if again:
            stream.attach_again()
        return stream

    def known_output(self, id_: int, *, is_file: bool = False) -> OutputStream:
        """A stream that the agent listed: nobody reads it until it is attached."""
        self._newest = max(self._newest, id_)
        return self._outputs.get(id_) or OutputStream(id_, owner=self, is_file=is_file)

    def new_input(self, stream: InputStream) -> None:
        """Enter a stream that an answer named."""
        self._take_id(stream.id)
        self._inputs[stream.id] = stream
        asked = self._unclaimed.pop(stream.id, None)
        if asked is not None:
            stream.disconnected()
            stream.attach_arrived(asked.start, asked.limit)

    def route(self, stream: OutputStream) -> None:
        """Frames of this stream go to it from now on; it fails if that cannot be."""
        if self._make_end is not None:
            stream.fail(self._make_end)
        elif stream.era != self.era or self._outputs.get(stream.id, stream) is not stream:
            # IDs of another agent may come again, and a hostile one may use one twice.
            stream.fail(
                lambda: StreamReset("UNKNOWN_STREAM", "The agent does not have this stream any more.")
            )
        else:
            self._newest = max(self._newest, stream.id)
            self._outputs[stream.id] = stream

    def retire(self, stream: OutputStream | InputStream) -> None:
        """Nothing more is expected for this stream."""
        if isinstance(stream, InputStream):
            if self._inputs.get(stream.id) is stream:
                del self._inputs[stream.id]
            self._waiting.pop(stream, None)
        elif self._outputs.get(stream.id) is stream:
            del self._outputs[stream.id]
            if stream.is_file:
                self._closed_files.append(stream.id)

    # Frames.

    def data(self, frame: Data) -> None:
        """DATA of an output stream."""
        stream = self._outputs.get(frame.stream)
        if stream is not None:
            stream.data_arrived(frame.offset, frame.data)
        else:
            self._stray(frame.stream)

    def end(self, frame: End) -> None:
        """END of an output stream."""
        stream = self._outputs.get(frame.stream)
        if stream is not None:
            stream.end_arrived(frame.total)
        else:
            self._stray(frame.stream)

    def gap(self, frame: Gap) -> None:
        """GAP in an output stream."""
        stream = self._outputs.get(frame.stream)
        if stream is not None:
            stream.gap_arrived(frame.start, frame.end)
        else:
            self._stray(frame.stream)

    def reset(self, frame: Reset) -> None:
        """RESET of either kind."""
        code, message = frame.code, frame.message
        if (output := self._outputs.get(frame.stream)) is not None:
            output.reset_arrived(code, message)
        elif (stream := self._inputs.get(frame.stream)) is not None:
            stream.fail(lambda: StreamReset(code, message))
        else:
            self.channel.charge()

    def credit(self, frame: Credit) -> None:
        """CREDIT for an input stream."""
        stream = self._inputs.get(frame.stream)
        if stream is not None:
            stream.credit_arrived(frame.consumed, frame.limit)
        else:
            self.channel.charge()

    def attach(self, frame: Attach) -> None:
        """ATTACH: the agent wants an input stream from where it has it."""
        stream = self._inputs.get(frame.stream)
        if stream is not None:
            stream.attach_arrived(frame.start, frame.limit)
            return
        self.channel.charge()
        if (
            self._answers_missing
            and frame.stream not in self._unclaimed
            and len(self._unclaimed) < MAX_UNCLAIMED
        ):
            self._unclaimed[frame.stream] = frame
        else:
            self._refuse(frame.stream)

    # What happens to all of them.

    def connected(self, *, answers_missing: bool) -> None:
        """A connection lives. `answers_missing`: requests were sent again that may name streams."""
        self._answers_missing = answers_missing
        for id_ in self._closed_files:
            self._refuse(id_)
        self._closed_files.clear()
        for stream in list(self._outputs.values()):
            stream.reconnected()

    def disconnected(self) -> None:
        """The connection broke."""
        self._unclaimed.clear()
        for stream in self._inputs.values():
            stream.disconnected()

    def asked_for_all(self) -> None:
        """The first answer on a new connection: the agent has attached whatever it has before it."""
        for stream in list(self._inputs.values()):
            stream.not_attached()

    def answers_complete(self) -> None:
        """Every request that was sent again is answered: nobody will claim the rest."""
        self._answers_missing = False
        for id_ in self._unclaimed:
            self._refuse(id_)
        self._unclaimed.clear()

    def fail_all(self, make_error: MakeError, *, for_good: bool) -> None:
        """The agent is another one, or (`for_good`) the sandbox has ended."""
        if for_good:
            self._make_end = make_error
        for output in list(self._outputs.values()):
            output.fail(make_error)
        for stream in list(self._inputs.values()):
            stream.fail(make_error)
        self._unclaimed.clear()
        self._closed_files.clear()
        self._newest = 0
        self.era += 1

    def wait_for_room(self, stream: InputStream) -> None:
        """Wake this stream's writers when the pool and the connection have room again."""
        self._waiting[stream] = None

    def room_freed(self) -> None:
        """Wake the stream that has waited longest, if there is room for a good piece.

        One at a time: else an agent that hands back single bytes would make us run through all of them.
        """
        if self._waiting and not self.channel.congested and self.input_pool.room(FLOOR_BYTES) >= PIECE_BYTES:
            stream = next(iter(self._waiting))
            del self._waiting[stream]
            stream.wake()

    @property
    def has_inputs(self) -> bool:
        """Something is being written."""
        return bool(self._inputs)

    def _take_id(self, id_: int) -> None:
        if not id_ or id_ in self._outputs or id_ in self._inputs:
            raise ProtocolError("order", f"stream {id_} is named twice")
        self._newest = max(self._newest, id_)

    def _stray(self, id_: int) -> None:
        """A frame for a stream that is not there: late, or made up."""
        if id_ > self._newest or id_ in self._inputs:
            raise ProtocolError("order", f"stream {id_} is no output stream")
        self.channel.charge()

    def _refuse(self, id_: int) -> None:
        self.channel.send(frames.reset(id_, "RESET", "nobody has this stream"))
