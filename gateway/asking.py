"""A request as its budgets see it: what it asks for, what a closer look shows, and what is sent in its place where a
budget asked for that. The side of admission that has the request; the other one, which has the money, is `admission`.
"""

from collections.abc import Callable

import msgspec

from gateway.admission import Grant, Looked, Wanted
from gateway.call import Ask
from gateway.dialects.base import Dialect, Ending
from gateway.errors import Refusal
from gateway.shape import Shape
from gateway.tokens import Estimator

COUNTED_BYTES_MIN = 2048
"""A shorter request is not counted: each of its bytes may be a token."""


class Admitted(msgspec.Struct):
    """What a call got."""

    grant: Grant
    path: str | None = None
    body: bytes | None = None
    """What is sent in place of the client's own path and (decoded) body, where a budget asked for it."""
    ending: Ending | None = None
    """Of a stream that its budgets may have to end."""
    enough_to: int = 0
    """The hold is enough for so many bytes of content."""
    remaining_nano: int | None = None
    """What is left of the tightest of the call's budgets, once it is closed."""


class Asking(msgspec.Struct, frozen=True):
    """What admission has to know of a request."""

    dialect: Dialect | None
    ask: Ask
    path: str
    """As it goes upstream."""
    body: bytes
    """Decoded."""
    region: str | None
    provider: str
    may_use: Callable[[str], bool]
    """True for the models that the caller's key may use."""
    is_signed: bool = False
    """The client has signed the request's bytes: they cannot be changed."""
    in_session: bool = False
    """It is a response in a session."""
    shape: Shape = Shape()

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.ask, self.region, len(self.body), self.in_session)

    def clamped(self, tokens: int) -> bytes | None:
        """The body with a maximum of at most so many output tokens; `None` where it has none."""
        clamp = None if self.dialect is None or self.is_signed else self.dialect.clamp
        return None if clamp is None else clamp(self.path, self.provider, self.body, tokens)

    def ending(self) -> Ending | None:
        """What can end the stream of the answer; `None` where nothing can."""
        ending = None if self.dialect is None or not self.ask.stream else self.dialect.ending
        try:
            return None if ending is None else ending(self.path, self.body)
        except (Refusal, ValueError, RecursionError):
            return None  # a body that only its provider can read

    def for_model(self, model: str) -> "Asking | None":
        """The same request for another model; `None` where it cannot ask for that one."""
        reroute = None if self.dialect is None or self.is_signed or not self.may_use(model) else self.dialect.reroute
        changed = None if reroute is None else reroute(self.path, self.body, model)
        return None if changed is None else msgspec.structs.replace(self, path=changed[0], body=changed[1])

    def admitted(self, grant: Grant) -> Admitted:
        """What is sent of it now."""
        admitted, asking = Admitted(grant), self
        if (
            grant.action == "rerouted"
            and grant.model is not None
            and (other := self.for_model(grant.model)) is not None
        ):
            asking, admitted.path, admitted.body = other, other.path, other.body
        if grant.may_stop:
            admitted.ending = asking.ending()
        if grant.max_output_tokens is not None:
            admitted.body = asking.clamped(grant.max_output_tokens)
        return admitted


class Request(msgspec.Struct, frozen=True):
    """Shows a request to admission (its `View`)."""

    asking: Asking
    model: str | None
    estimator: Estimator
    may_go_on: Callable[[], object]
    """Raises the refusal of one that may not any more."""

    async def look(self, model: str | None) -> Looked | None:
        asking = self.asking if model is None else self.asking.for_model(model)
        if asking is None:
            return None
        tokens = None
        if len(asking.body) >= COUNTED_BYTES_MIN:
            tokens = await self.estimator.most_tokens(asking.provider, model or self.model, asking.body)
        return Looked(len(asking.body), tokens, asking.clamped(1) is not None, asking.ending() is not None)

    async def check(self) -> None:
        self.may_go_on()
