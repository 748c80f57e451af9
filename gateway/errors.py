"""Refusals: the gateway's own "no", never a provider's error. Codes and precedence: docs/refusals.md."""

from typing import Literal

RefusalCode = Literal[
    "unauthenticated",
    "forbidden",
    "request_unreadable",
    "request_too_large",
    "route_unknown",
    "ticket_required",
    "ticket_unknown",
    "model_unpriced",
    "budget_exceeded",
    "rate_limited",
    "too_many_in_flight",
    "loop_stopped",
    "upstream_unreachable",
    "upstream_timeout",
    "ledger_unavailable",
]

STATUS: dict[RefusalCode, int] = {
    "unauthenticated": 401,
    "forbidden": 403,
    "request_unreadable": 400,
    "request_too_large": 413,
    "route_unknown": 404,
    "ticket_required": 400,
    "ticket_unknown": 400,
    "model_unpriced": 400,
    "budget_exceeded": 402,
    "rate_limited": 429,
    "too_many_in_flight": 429,
    "loop_stopped": 402,
    "upstream_unreachable": 502,
    "upstream_timeout": 504,
    "ledger_unavailable": 503,
}
"""HTTP status of each refusal, in order of precedence."""


OF_BUDGETS: frozenset[RefusalCode] = frozenset({"budget_exceeded", "loop_stopped"})
"""Answered so that tools stop at once: each dialect, and some tools, by a status of their own."""
OF_LIMITS: frozenset[RefusalCode] = frozenset({"rate_limited", "too_many_in_flight"})
"""These pass by themselves in seconds: answered as the provider's own rate limit is, so that tools try again."""


class Refusal(Exception):  # noqa: N818 - a refusal is a decision, not an error
    """Raised by any stage, caught once in `proxy`, written in the caller's dialect.

    `message` is shown to a person by the calling tool: it says what happened and what to do. It never holds request
    text, a credential or a key.
    """

    def __init__(
        self, code: RefusalCode, message: str, *, retry_after: int | None = None, resets_at: int | None = None
    ) -> None:
        """`retry_after`: seconds, 1 to 10, of a limit that ends so soon; never of a budget, since tools would wait.
        `resets_at`: when a budget begins anew, seconds since the epoch."""
        super().__init__(message)
        self.code: RefusalCode = code
        self.message = message
        self.retry_after = retry_after
        self.resets_at = resets_at

    @property
    def status(self) -> int:
        return STATUS[self.code]

    @property
    def seconds(self) -> int:
        """After which a limit may be tried again."""
        return self.retry_after or 1


class UserError(Exception):
    """A person's mistake at the command line or in a file: printed as one readable line, exit code 1."""
