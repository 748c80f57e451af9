"""The link between a worker and the owner: a connected pair of Unix sockets, and messages on it, each with its length
before it. Many questions are under way at a time, each with a number; what one turn of the event loop has to say is
written together. Both ends are of one version: the owner starts the workers.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import msgspec

from gateway.admission import Grant, Looked, Wanted
from gateway.call import BudgetAction, Call
from gateway.config import Config
from gateway.errors import Refusal, RefusalCode
from gateway.sessions import Remembered, Who
from gateway.telemetry import Sample

HEAD_BYTES = 4
T = TypeVar("T")


class Message(msgspec.Struct, tag=True, array_like=True):
    pass


# -- a worker says ----------------------------------------------------------------------------------------------------


class Listens(Message):
    """It takes calls."""


class Open(Message):
    n: int
    call: Call
    wanted: Wanted


class Cancel(Message):
    """Nobody waits for the answer to this `Open` any more."""

    n: int


class Seen(Message):
    """What came of a `Look` or a `Check`."""

    n: int
    looked: Looked | None = None
    refusal: "Refused | None" = None


class Grow(Message):
    n: int
    call_id: str
    cost: int


class Close(Message):
    n: int
    call: Call
    content_bytes: int | None
    is_pending: bool


class Refuse(Message):
    n: int
    call: Call


class Demand(Message):
    n: int
    call: Call


class Enter(Message):
    n: int
    call: Call


class Leave(Message):
    request_id: str


class Book(Message):
    n: int
    results: list[tuple[Call, bytes]]


class Correct(Message):
    n: int
    key: str
    call: Call


class TaskOf(Message):
    n: int
    who: Who
    tickets: tuple[str, ...]
    now_us: int


class Counted(Message):
    """What its own counters have gained since it said so last, and what its gauges show."""

    gained: list[Sample]
    levels: list[Sample]
    n: int = 0
    """Of the `Count` that asked; 0 = unasked."""


# -- the owner says ---------------------------------------------------------------------------------------------------


class Begin(Message):
    """The first message."""

    config: Config
    gateway_id: str
    price_book: str


class Told(Message):
    """The answer to a question."""

    n: int
    value: Grant | int | bool | str | None


class Refused(Message):
    """The answer is no."""

    n: int
    code: RefusalCode
    message: str
    retry_after: int | None
    resets_at: int | None
    action: BudgetAction | None = None
    model: str | None = None
    """What the call's record says now."""

    def refusal(self) -> Refusal:
        return Refusal(self.code, self.message, retry_after=self.retry_after, resets_at=self.resets_at)


class Failed(Message):
    """There is no answer: it could not be written down."""

    n: int
    why: str


class Look(Message):
    """About the request of an `Open`: see `View`."""

    n: int
    model: str | None


class Check(Message):
    n: int


class Count(Message):
    n: int


# -- both say ---------------------------------------------------------------------------------------------------------


class Said(Message):
    """What a session said is something else than before: see `Sessions`."""

    who: Who
    session: str
    said: Remembered


FromWorker = (
    Listens | Open | Cancel | Seen | Grow | Close | Refuse | Demand | Enter | Leave | Book | Correct | TaskOf
    | Counted | Said
)  # fmt: skip
FromOwner = Begin | Told | Refused | Failed | Look | Check | Count | Said


def refused(n: int, refusal: Refusal, call: Call | None = None) -> Refused:
    said = Refused(n, refusal.code, refusal.message, refusal.retry_after, refusal.resets_at)
    if call is not None:
        said.action, said.model = call.budget_action, call.request_model
    return said


class Link(asyncio.Protocol, Generic[T]):
    """One end. `received` is called with each message, `lost` when the other end is gone."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[T]", received: Callable[[T], None], lost: Callable[[], None]):
        self._decoder = decoder
        self._received = received
        self._lost = lost
        self._encoder = msgspec.msgpack.Encoder()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._out = bytearray()
        self._in = b""

    async def open(self, own: socket.socket) -> None:
        own.setblocking(False)
        await self._loop.create_unix_connection(lambda: self, sock=own)

    def close(self) -> None:
        """After what was said has been written."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def send(self, message: Message) -> None:
        """Never waits. What the message is made of may change afterwards. Raises what encoding raises; then nothing
        was said."""
        if not self._out:
            self._loop.call_soon(self._flush)
        at = len(self._out)
        self._out += bytes(HEAD_BYTES)
        try:
            self._encoder.encode_into(message, self._out, -1)
        except BaseException:
            del self._out[at:]  # half a message would be taken for the beginning of the next
            raise
        self._out[at : at + HEAD_BYTES] = (len(self._out) - at - HEAD_BYTES).to_bytes(HEAD_BYTES, "big")

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            out, self._out = self._out, bytearray()
            self._transport.write(out)

    # -- asyncio's side -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data, start = self._in + data if self._in else data, 0
        while len(data) - start >= HEAD_BYTES:
            end = start + HEAD_BYTES + int.from_bytes(data[start : start + HEAD_BYTES], "big")
            if end > len(data):
                break
            message = self._decoder.decode(data[start + HEAD_BYTES : end])
            start = end
            self._received(message)
        self._in = data[start:]

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost()
