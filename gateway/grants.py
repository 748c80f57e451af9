"""What a key is bound to, and what the holder of one may hand on: never more than he has. Pure."""

import fnmatch
import re
from collections.abc import Collection
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from gateway.call import Principal, Purpose, Role, TicketPolicy
from gateway.errors import UserError

TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}")
ENTRIES_MAX = 100
_ONE_VALUE = ("team_id", "user_id", "ticket", "ticket_policy", "purpose")
_RANKS: dict[Role | None, int] = {None: -1, **{role: rank for rank, role in enumerate(get_args(Role))}}

# What `check` holds is in the API's description, too.
_TEXT_SCHEMA = {"minLength": 1, "maxLength": 200, "pattern": f"^{TEXT.pattern}$"}


def _text(meaning: str) -> Meta:
    return Meta(extra_json_schema={**_TEXT_SCHEMA, "description": meaning})


def _texts(meaning: str) -> Meta:
    return Meta(extra_json_schema={"maxItems": ENTRIES_MAX, "description": meaning})


class Grant(msgspec.Struct, kw_only=True):
    """What a key is bound to; what is not given is not bound."""

    team_id: Annotated[str, _text("Team that calls with this key belong to.")] | None = None
    user_id: Annotated[str, _text("Person or service that holds it.")] | None = None
    name: Annotated[str, _text("What it is for.")] | None = None
    ticket: Annotated[str, _text("Ticket that all its calls belong to.")] | None = None
    ticket_policy: TicketPolicy | None = None
    purpose: Purpose | None = None
    models: Annotated[tuple[Annotated[str, _text("A glob.")], ...], _texts("Only these models.")] = ()
    upstreams: Annotated[tuple[Annotated[str, _text("A name.")], ...], _texts("Only these upstreams.")] = ()
    role: Role | None = None


def check(grant: Grant) -> None:
    """Raises `UserError` where a text of the grant is none, or there are too many."""
    for field in ("team_id", "user_id", "name", "ticket"):
        if (value := getattr(grant, field)) is not None and not TEXT.fullmatch(value):
            raise UserError(f"{field} must have 1 to 200 characters, and no control characters")
    for field in ("models", "upstreams"):
        values = getattr(grant, field)
        if len(values) > ENTRIES_MAX or not all(TEXT.fullmatch(value) for value in values):
            raise UserError(
                f"{field} must have at most {ENTRIES_MAX} entries of 1 to 200 characters, and no control characters"
            )


def check_upstreams(grant: Grant, upstreams: Collection[str]) -> None:
    """Raises `UserError` where a key would be for an upstream that is not there."""
    if not set(grant.upstreams) <= set(upstreams):
        raise UserError(f"upstreams must be among {', '.join(upstreams)}, those of the settings")


def excess(issuer: Principal, grant: Grant) -> str | None:
    """What a key of this grant would have beyond its issuer, as a demand on the grant; `None` when nothing."""
    if _RANKS[grant.role] > _RANKS[issuer.role]:
        return f"role must be no higher than {issuer.role}"
    return outside(issuer, grant)


def outside(issuer: Principal, grant: Grant) -> str | None:
    """The same, of what keys are bound to alone."""
    for field in _ONE_VALUE:
        bound: Any = getattr(issuer, field)
        if bound is not None and getattr(grant, field) != bound:
            return f'{field} must be "{bound}"'
    if issuer.models and not (grant.models and all(_is_covered(glob, issuer.models) for glob in grant.models)):
        return f"models must be among {', '.join(issuer.models)}"
    if issuer.upstreams and not (grant.upstreams and set(grant.upstreams) <= set(issuer.upstreams)):
        return f"upstreams must be among {', '.join(issuer.upstreams)}"
    return None


def outlives(issuer: Principal, expires_at: int | None) -> bool:
    """True when a key that ends then (`None` = never) is there longer than its issuer."""
    ends = issuer.expires_at
    return ends is not None and (expires_at is None or expires_at > ends)


def _is_covered(glob: str, by: tuple[str, ...]) -> bool:
    return any(_covers(wide, glob) for wide in by)


def _covers(wide: str, narrow: str) -> bool:
    """True only when whatever matches `narrow` matches `wide`. Strict: some such pairs are not seen."""
    if wide in ("*", narrow):
        return True
    if "[" in narrow or (("[" in wide or "?" in wide) and ("*" in narrow or "?" in narrow)):
        return False
    # As text: what stands for anything in `narrow` is then taken by a `*` of `wide`.
    return fnmatch.fnmatchcase(narrow, wide)
