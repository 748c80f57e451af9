"""Findings of waste, as the gateway shows them: what the control plane says of them, and a notice of new ones.

The control plane finds waste (`analytics/waste.py`) and keeps the reviews; here is the way to it for keys with a role.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from gateway import money
from gateway.control import AwayError, Control
from gateway.endpoints import ApiError, Asked, Endpoint
from gateway.verdicts import NEWS, News, Reason, State, Verdict

Rule = Annotated[str, Meta(pattern="^W(0[1-9]|1[0-8])$", examples=["W03"])]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Note = Annotated[str, Meta(min_length=1, max_length=500)]
SHAPE = "[0-9a-f]{16}"
ROUND_SECONDS = 60.0
YEAR_US = 366 * 24 * 3600 * 1_000_000

log = logging.getLogger("outlay")


class Finding(msgspec.Struct, kw_only=True):
    finding_id: str
    rule: str
    title: str
    kind: str | None
    state: State
    reason: str | None
    team_id: str | None
    ticket_id: str | None
    models: list[str]
    calls: int
    unpriced_calls: int
    first_call_at: datetime
    last_call_at: datetime
    recoverable_usd: Decimal
    low_usd: Decimal
    high_usd: Decimal
    claimed_usd: Annotated[Decimal, Meta(description="The part that may be added up: each dollar is claimed once.")]
    also_in: list[str]
    sentence: str
    precision: float | None
    as_of: datetime


class FindingList(msgspec.Struct):
    findings: list[Finding]


class Said(msgspec.Struct):
    reviewed_at: datetime
    reviewed_by: str
    state: Verdict
    reason: Reason | None
    note: str | None


class FindingDetail(Finding, kw_only=True):
    rule_version: str
    evidence: dict[str, Any]
    call_ids: list[str]
    reviews: list[Said]
    callers: (
        Annotated[list[str], Meta(description="Of disputed tags alone, for finops and admin.")] | msgspec.UnsetType
    ) = msgspec.UNSET


class WhichFindings(msgspec.Struct, forbid_unknown_fields=True):
    state: State | msgspec.UnsetType = msgspec.UNSET
    rule: Rule | msgspec.UnsetType = msgspec.UNSET
    team: Name | msgspec.UnsetType = msgspec.UNSET
    ticket: Name | msgspec.UnsetType = msgspec.UNSET


class NewReview(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody says of a finding."""

    state: Verdict
    reason: Reason | None = None
    note: Note | None = None


class FindingsApi:
    """Findings, for keys with a role. One bound to a team sees the findings of that team alone."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def endpoints(self) -> list[Endpoint]:
        away, named = {503: "The control plane is not running, or took too long."}, {"finding_id": SHAPE}
        missing, one = (
            {404: "No such finding, or none that this key may see."},
            "/-/api/v1/findings/{finding_id}",
        )
        return [
            Endpoint(
                method="GET", path="/-/api/v1/findings", access="viewer",
                summary="Findings of waste that were not dismissed, the 100 that claim most first.",
                serve=self.list_findings, query=WhichFindings, answer=FindingList, refuses=away,
            ),
            Endpoint(
                method="GET", path=one, access="viewer", summary="A finding with its evidence.", serve=self.get_finding,
                answer=FindingDetail, refuses={**away, **missing}, shapes=named,
            ),
            Endpoint(
                method="POST", path=one + "/review", access="finops",
                summary="Accept a finding, dismiss it with a reason, or have it looked at again.", serve=self.review,
                body=NewReview, answer=FindingDetail, shapes=named,
                refuses={**away, **missing, 422: "A reason that is missing, or is none; `other` without a note."},
            ),
        ]  # fmt: skip

    async def list_findings(self, asked: Asked) -> msgspec.Raw:
        given = {
            name: value for name, value in msgspec.structs.asdict(asked.query).items() if value is not msgspec.UNSET
        }
        if asked.principal.team_id is not None:
            if given.get("team", asked.principal.team_id) != asked.principal.team_id:
                return msgspec.Raw(b'{"findings":[]}')
            given["team"] = asked.principal.team_id
        return await self._ask("GET", "", given)

    async def get_finding(self, asked: Asked) -> msgspec.Raw:
        return await self._ask("GET", f"/{_named(asked)}", self._seen_by(asked))

    async def review(self, asked: Asked) -> msgspec.Raw:
        body = msgspec.json.encode({**msgspec.structs.asdict(asked.body), "by": asked.principal.key_id})
        return await self._ask("POST", f"/{_named(asked)}", self._seen_by(asked), body)

    def _seen_by(self, asked: Asked) -> dict[str, str]:
        names = {} if asked.principal.role == "viewer" else {"names": "yes"}
        return names | ({} if asked.principal.team_id is None else {"team": asked.principal.team_id})

    async def _ask(self, method: str, path: str, query: dict[str, str], body: bytes = b"") -> msgspec.Raw:
        try:
            status, answer = await self._control.findings(method, f"{path}?{urlencode(query)}", body)
        except AwayError as away:
            raise ApiError(503, "control_plane_away", str(away)) from None
        if status == 404:
            raise ApiError(404, "not_found", "Outlay: there is no such finding.")
        if status == 422:
            raise ApiError(422, "not_possible", f"Outlay: {answer.decode()}.")
        return msgspec.Raw(answer)


def _named(asked: Asked) -> str:
    if not re.fullmatch(SHAPE, asked.path["finding_id"]):
        raise ApiError(404, "not_found", "Outlay: there is no such finding.")
    return asked.path["finding_id"]


class FindingNotices:
    """Tells of what the control plane's looks found. `notice`: see `Alerts.notice`."""

    def __init__(self, data_dir: Path, notice: Callable[..., None]) -> None:
        self._file = data_dir / NEWS
        self._notice = notice
        self._seen: tuple[int, int] | None = None

    def refresh(self) -> News | None:
        """What is new since the last time; `None` when nothing is."""
        try:
            stat = self._file.stat()
            if (seen := (stat.st_ino, stat.st_mtime_ns)) == self._seen:
                return None
            self._seen = seen
            return msgspec.json.decode(self._file.read_bytes(), type=News)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.error("%s cannot be read, new findings are not told: %s", self._file, type(error).__name__)
            return None

    def tell(self, news: News) -> None:
        at = news.as_of.astimezone(UTC)
        at_us = int(at.timestamp() * 1_000_000)
        self._notice(
            "waste_found",
            f"{at:%Y-%m-%dT%H:%M:%SZ}",
            f"{news.findings:,} new findings of waste claim {money.short(news.claimed_nano)} together. "
            "`outlay report waste` shows the sums, `outlay findings list --state new` what to accept or dismiss.",
            until_us=at_us + YEAR_US,
            findings=news.findings,
            claimed_usd=money.exact(news.claimed_nano),
        )

    async def keep(self) -> None:
        """Run beside the server."""
        while True:
            if (news := await asyncio.to_thread(self.refresh)) is not None:
                self.tell(news)
            await asyncio.sleep(ROUND_SECONDS)
