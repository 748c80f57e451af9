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
    "upstream_unreachable": 502,
    "upstream_timeout": 504,
    "ledger_unavailable": 503,
}
"""HTTP status of each refusal, in order of precedence."""


class Refusal(Exception):  # noqa: N818 - a refusal is a decision, not an error
    """Raised by any stage, caught once in `proxy`, written in the caller's dialect.

    `message` is shown to a person by the calling tool: it says what happened and what to do. It never holds request
    text, a credential or a key.
    """

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code: RefusalCode = code
        self.message = message

    @property
    def status(self) -> int:
        return STATUS[self.code]


class UserError(Exception):
    """A person's mistake at the command line or in a file: printed as one readable line, exit code 1."""
