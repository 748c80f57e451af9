"""Trackers and forges over HTTP: pages, limits that say how long to wait, failures that pass, tokens that have ended.

What goes wrong for good is one line that says what to do. No line quotes an answer or a query, so none holds a token.
"""

import itertools
import random
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec

from analytics.sources.source import Patience, SourceError
from gateway.config import secret
from gateway.errors import UserError
from gateway.reading import tidied

TRIES = 4
WAIT_SECONDS = 1.0
"""Before a second try, when nobody says how long; doubled for each further one."""


def token_of(reference: str | None, setting: str) -> str | None:
    """The token behind `env:NAME` or `file:PATH`; `None` where the setting is not set. Raises `SourceError`."""
    if reference is None:
        return None
    token = secret(reference)
    if token is None:
        raise SourceError(f"{setting}: there is nothing in {reference}")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise SourceError(f"{setting}: {reference} holds what no token can: blanks, or other than ASCII letters")
    return token


class Api:
    """One tracker's API, below one address. Methods raise `SourceError` where all of it fails, and `UserError`."""

    def __init__(self, name: str, base_url: str, headers: Mapping[str, str], setting: str, patience: Patience) -> None:
        """`setting` says where its token comes from: `[work.github] token`."""
        self._whom = name
        self._setting = setting
        self._patience = patience
        self._ahead = timedelta()
        """Of our clock is theirs."""
        self._http = httpx.Client(
            base_url=base_url.rstrip("/") + "/",
            headers={"User-Agent": "outlay", "Accept": "application/json", **headers},
            timeout=30.0,
            follow_redirects=True,  # what was renamed; to another host it goes without the token
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def now(self) -> datetime:
        """By their clock, as their last answer told it, in UTC without a zone."""
        return (datetime.now(UTC) + self._ahead).replace(tzinfo=None)

    def get(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        allowed: Collection[int] = (),
    ) -> httpx.Response:
        """`allowed` are statuses beside 2xx that are an answer."""
        return self._ask("GET", path, allowed, params=query or None, headers=headers)

    def post(self, path: str, body: Any, *, allowed: Collection[int] = ()) -> httpx.Response:
        return self._ask("POST", path, allowed, json=body)

    def pages(
        self, path: str, query: Mapping[str, str], *, allowed: Collection[int] = ()
    ) -> Iterator[tuple[httpx.Response, dict[str, str] | None]]:
        """Answers, and the query of the next page, by their `Link`, or GitLab's number where a proxy takes that away.
        Of a link only the query is followed, so never to another host."""
        page: dict[str, str] | None = dict(query)
        while page is not None:
            answer = self.get(path, page, allowed=allowed)
            following = answer.links.get("next", {}).get("url")
            number = answer.headers.get("x-next-page", "")
            if following:
                page = dict(parse_qsl(urlsplit(following).query))
            else:
                page = {**page, "page": number} if number.isdecimal() else None
            yield answer, page

    def items(self, answer: httpx.Response) -> list[Any]:
        """The JSON of an answer that is a list."""
        found = self.decode(answer)
        if not isinstance(found, list):
            raise self._strange()
        return found

    def decode(self, answer: httpx.Response) -> Any:
        """The JSON of an answer."""
        try:
            try:
                return msgspec.json.decode(answer.content)
            except msgspec.MsgspecError:
                return msgspec.json.decode(tidied(answer.content))
        except (ValueError, RecursionError):
            raise self._strange() from None

    def _strange(self) -> SourceError:
        setting = self._setting.replace("token", "api")
        return SourceError(
            f"{self._whom} ({self._http.base_url.host}) does not answer as its API does: check {setting}"
        )

    def _ask(self, method: str, path: str, allowed: Collection[int], **options: Any) -> httpx.Response:
        answer = send(self._http, self._whom, method, path, self._patience, **options)
        if date := _date(answer):
            self._ahead = date - datetime.now(UTC)
        status = answer.status_code
        if answer.is_success or status in allowed:
            return answer
        whom = f"{self._whom} ({self._http.base_url.host})"
        if status == 401:
            raise SourceError(f"{whom} does not take the token of {self._setting}: it may have ended, or been revoked")
        if status in (403, 404):
            raise UserError(
                f"{whom} does not show {path}: it may be gone, or the token of {self._setting} may not read it"
            )
        raise UserError(f"{whom} answers {status} to {path}: the next sync tries again")


def send(http: httpx.Client, whom: str, method: str, path: str, patience: Patience, **options: Any) -> httpx.Response:
    """Send a request, again when the other side is busy, broken or out of reach: the last answer, whatever it is.

    Raises `SourceError` when there is none, or when the other side asks for more patience than there is.
    """
    wait = WAIT_SECONDS
    for tried in itertools.count(1):
        asked = None
        try:
            answer = http.request(method, path, **options)
        except httpx.RequestError:
            if tried == TRIES:
                raise SourceError(f"{whom} cannot be reached at {http.base_url.host}") from None
        else:
            if tried == TRIES or not _is_passing(answer):
                return answer
            asked = asked_to_wait(answer)
        if asked is None:
            asked, wait = wait * random.uniform(0.5, 1.0), wait * 2  # noqa: S311 - so that not all come back at once
        patience.wait(max(asked, WAIT_SECONDS), f"{whom} ({http.base_url.host})")
    raise AssertionError("unreachable")


def _is_passing(answer: httpx.Response) -> bool:
    """A failure that may be over in a while. GitHub's limits are 429 or 403."""
    limited = "retry-after" in answer.headers or answer.headers.get("x-ratelimit-remaining") == "0"
    return answer.status_code == 429 or answer.status_code >= 500 or (answer.status_code == 403 and limited)


def asked_to_wait(answer: httpx.Response) -> float | None:
    """Seconds to wait before another try, where the answer says that. What it calls a time is one of its own clock."""
    after, now = answer.headers.get("retry-after", ""), (_date(answer) or datetime.now(UTC)).timestamp()
    reset = answer.headers.get("x-ratelimit-reset", "") if answer.headers.get("x-ratelimit-remaining") == "0" else ""
    if after.isdecimal():
        return float(after)
    if after:
        try:
            return max(0.0, parsedate_to_datetime(after).timestamp() - now)
        except (TypeError, ValueError):
            return None
    return max(0.0, int(reset) - now) if reset.isdecimal() else None


def _date(answer: httpx.Response) -> datetime | None:
    try:
        found = parsedate_to_datetime(answer.headers["date"])
        return found if found.tzinfo else None
    except (KeyError, TypeError, ValueError):
        return None


class OverHttp:
    """A source that is asked over one `Api`: what all of them have in common."""

    _api: Api

    def __enter__(self) -> Self:
        self._api.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._api.__exit__(*exc)

    def now(self) -> datetime:
        return self._api.now()
