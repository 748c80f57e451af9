"""Who is signed in, kept in the memory of this process alone; and how often one may try.

A session's token is 256 random bits in a cookie; here its digest is kept. When the console starts anew, people sign in
again.
"""

import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.call import Principal

SESSIONS_MAX = 2_000
"""The one that was used longest ago goes first."""
ATTEMPTS, ATTEMPT_SECONDS = 10, 60.0
"""So many sign-ins that fail, from one address and in so long."""
ADDRESSES_MAX = 10_000


@dataclass
class Session:
    """A person who is signed in."""

    principal: Principal
    name: str
    """To greet with, and as `by` in what is changed."""
    proof: str
    """Digest of the secret that was shown, if one was; it has to stay in force."""
    began: float
    seen: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def is_answered_by(self, token: str) -> bool:
        """True for the token that this session's forms have."""
        return hmac.compare_digest(self.csrf.encode(), token.encode())


class Sessions:
    def __init__(self, idle_seconds: float, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._idle, self._longest, self._clock = idle_seconds, seconds, clock
        self._by_digest: dict[str, Session] = {}

    def begin(self, principal: Principal, name: str, proof: str) -> tuple[str, Session]:
        """A new session and its token. Whoever signs in gets another one than he had before."""
        token, now = secrets.token_urlsafe(32), self._clock()
        session = self._by_digest[_digest(token)] = Session(principal, name, proof, now, now)
        while len(self._by_digest) > SESSIONS_MAX:
            del self._by_digest[min(self._by_digest, key=lambda digest: self._by_digest[digest].seen)]
        return token, session

    def find(self, token: str) -> Session | None:
        """The session of a token, which is used by this."""
        if (session := self._by_digest.get(_digest(token))) is None:
            return None
        now = self._clock()
        if now - session.seen > self._idle or now - session.began > self._longest:
            self.end(token)
            return None
        session.seen = now
        return session

    def end(self, token: str) -> None:
        self._by_digest.pop(_digest(token), None)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Attempts:
    """Counts sign-ins that failed, by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[str, deque[float]] = {}

    def wait(self, address: str) -> float:
        """Seconds until one may try from there; 0 = now."""
        failed, now = self._failed.get(address, deque()), self._clock()
        while failed and now - failed[0] >= ATTEMPT_SECONDS:
            failed.popleft()
        return failed[0] + ATTEMPT_SECONDS - now if len(failed) >= ATTEMPTS else 0.0

    def failed(self, address: str) -> None:
        self._failed.setdefault(address, deque(maxlen=ATTEMPTS)).append(self._clock())
        while len(self._failed) > ADDRESSES_MAX:
            del self._failed[next(iter(self._failed))]
