"""The admin API: keys and prices, for keys with a role. Who may do what stands in the declarations; see docs/api.md.

A key with a role that is bound to a team (models, …) sees and changes only keys within its own bounds, and makes none
that may more than itself.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from gateway import grants, keys
from gateway.call import Principal
from gateway.endpoints import ApiError, Asked, Endpoint
from gateway.errors import Refusal, UserError
from gateway.grants import Grant
from gateway.keys import Change, Key, KeyInfo, Keys, KeyStateError, NoSuchKeyError
from gateway.prices import PriceBook, listing
from gateway.prices.listing import Offer
from gateway.tickets import Tickets

T = TypeVar("T")
Moment = Annotated[datetime, Meta(tz=True, description="ISO 8601, with a zone.")]
NO_KEY = "No such key, or none that this key may see."
CANNOT_WRITE = "It cannot be written: the disk is full, for example."


# -- keys --------------------------------------------------------------------------------------------------------------


class NewKey(Grant, kw_only=True, forbid_unknown_fields=True):
    """A key to make."""

    kind: Annotated[Literal["calls", "claims"], Meta(description="`claims`: signs tickets, and opens nothing.")] = (
        "calls"
    )
    expires_at: Moment | None = None


class MadeKey(KeyInfo, kw_only=True):
    secret: Annotated[str, Meta(description="Shown now, and kept nowhere.")]


class KeyList(msgspec.Struct):
    keys: list[KeyInfo]


class KeyHistory(KeyInfo, kw_only=True):
    changes: list[Change]


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    overlap_seconds: Annotated[
        float, Meta(ge=0, le=keys.OVERLAP_SECONDS_MAX, description="How long the old secret works on.")
    ] = keys.OVERLAP_SECONDS


class RotatedKey(MadeKey, kw_only=True):
    ended_secret_until: Annotated[
        datetime | None,
        Meta(description="Where a third secret was still to work until then: it has ended, for a key has two at most."),
    ]


class Revocation(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing needs to be said."""


class KeysApi:
    """Keys, for admins; their list, without people, for all roles."""

    def __init__(self, ring: Keys, tickets: Tickets, upstreams: Collection[str]) -> None:
        self._ring = ring
        self._tickets = tickets
        self._upstreams = upstreams

    def endpoints(self) -> list[Endpoint]:
        one, missing, full = "/-/api/v1/keys/{key_id}", {404: NO_KEY}, {503: CANNOT_WRITE}
        state = {409: "The key is not in a state for that."}
        return [
            Endpoint(
                method="GET", path="/-/api/v1/keys", access="viewer", summary="All keys and their state.",
                serve=self.list_keys, answer=KeyList,
            ),
            Endpoint(
                method="POST", path="/-/api/v1/keys", access="admin", summary="Make a key.", serve=self.create_key,
                body=NewKey, answer=MadeKey, status=201,
                refuses={**full, 422: "No such ticket or upstream, a moment that is over, a claim key with bounds."},
            ),
            Endpoint(
                method="GET", path=one, access="viewer", summary="A key, and what was done to it.",
                serve=self.get_key, answer=KeyHistory, refuses=missing,
            ),
            Endpoint(
                method="POST", path=one + "/rotate", access="admin", summary="Give a key a new secret.",
                serve=self.rotate_key, body=Rotation, answer=RotatedKey, refuses={**missing, **state, **full},
            ),
            Endpoint(
                method="POST", path=one + "/revoke", access="admin", summary="Revoke a key, at once and for good.",
                serve=self.revoke_key, body=Revocation, answer=KeyInfo, refuses={**missing, **full},
            ),
        ]  # fmt: skip

    async def list_keys(self, asked: Asked) -> KeyList:
        def told() -> list[KeyInfo]:
            seen = (key for key in self._ring.all() if grants.outside(asked.principal, key.created) is None)
            return [_shown(asked.principal, key) for key in seen]

        return KeyList(await asyncio.to_thread(told))

    async def get_key(self, asked: Asked) -> KeyHistory:
        key = self._seen(asked)
        return _more(KeyHistory, _shown(asked.principal, key), changes=keys.changes(key))

    async def create_key(self, asked: Asked) -> MadeKey:
        issuer, wanted = asked.principal, asked.body
        expires_at = None if wanted.expires_at is None else int(wanted.expires_at.timestamp())
        grant = {field: getattr(wanted, field) for field in Grant.__struct_fields__}
        try:
            grants.check(wanted)
        except UserError as error:
            raise ApiError(400, "request_unreadable", f"Outlay: {error}.") from None
        _may_make(issuer, wanted, expires_at)
        if expires_at is not None and expires_at <= time.time():
            raise _not_possible("expires_at is over")
        if expires_at is not None and expires_at > keys.MOMENT_MAX:
            raise _not_possible("expires_at is after the year 9999, in UTC")
        if wanted.ticket is not None and not self._tickets.keys().named(wanted.ticket).tickets:
            raise _not_possible("ticket must be one like PAY-123 or acme/shop#45, of a known project")
        try:
            grants.check_upstreams(wanted, self._upstreams)
        except UserError as error:
            raise _not_possible(str(error)) from None
        if wanted.kind == "claims" and any(
            grant[field] for field in grant if field not in ("team_id", "user_id", "name")
        ):
            raise _not_possible("a claim key takes only team_id, user_id, name and expires_at")
        if wanted.kind == "claims" and issuer.user_id is not None:
            raise Refusal(
                "forbidden", "Outlay: a claim key signs for all calls of a team: a key bound to a user makes none."
            )
        make = self._ring.create_claim_key if wanted.kind == "claims" else self._ring.create
        event, secret = await _changed(lambda: make(_name(issuer), expires_at=expires_at, **grant))
        return _more(MadeKey, _shown(issuer, self._ring.one(event.key_id)), secret=secret)

    async def rotate_key(self, asked: Asked) -> RotatedKey:
        issuer, key = asked.principal, self._seen(asked)
        _may_make(issuer, key.created, key.created.expires_at)
        key_id, overlap = key.created.key_id, int(asked.body.overlap_seconds)
        done = await _changed(lambda: self._ring.rotate(key_id, overlap, _name(issuer)))
        ended = None if done.ended is None else datetime.fromtimestamp(done.ended, UTC)
        return _more(RotatedKey, _shown(issuer, done.key), secret=done.secret, ended_secret_until=ended)

    async def revoke_key(self, asked: Asked) -> KeyInfo:
        """Again and again the same: whoever asks twice has what he wants."""
        key = self._seen(asked)
        if key.revoked_at is None:
            try:
                key = await _changed(lambda: self._ring.revoke(key.created.key_id, _name(asked.principal)))
            except ApiError as error:
                if error.status != 409:
                    raise
                key = self._seen(asked)  # somebody else was first
        return _shown(asked.principal, key)

    def _seen(self, asked: Asked) -> Key:
        try:
            key = self._ring.one(asked.path["key_id"])
        except NoSuchKeyError:
            key = None
        if key is None or grants.outside(asked.principal, key.created) is not None:
            raise ApiError(404, "not_found", "Outlay: there is no such key.")
        return key


def _name(principal: Principal) -> str:
    """Of an issuer, in the audit trail."""
    assert principal.key_id is not None
    return principal.key_id


def _may_make(issuer: Principal, grant: Grant, expires_at: int | None) -> None:
    """Raises the refusal `forbidden` for a key that may more than its issuer."""
    demand = grants.excess(issuer, grant)
    if demand is None and grants.outlives(issuer, expires_at):
        demand = f"expires_at must be no later than {keys.moment(issuer.expires_at or 0):%Y-%m-%dT%H:%M:%SZ}"
    if demand is not None:
        raise Refusal("forbidden", f"Outlay: a key never has more than its issuer: {demand}.")


def _shown(to: Principal, key: Key) -> KeyInfo:
    """People are shown to those alone who manage keys."""
    shown = keys.info(key, time.time())
    return shown if to.role == "admin" else msgspec.structs.replace(shown, user_id=None)


def _more(kind: type[T], shown: KeyInfo, **more: object) -> T:
    return kind(**msgspec.structs.asdict(shown), **more)


async def _changed(change: Callable[[], T]) -> T:
    """Done in a thread: it waits for the disk, and for others that write."""
    try:
        return await asyncio.to_thread(change)
    except KeyStateError as error:
        raise ApiError(409, "conflict", f"Outlay: {error}.") from None
    except OSError:
        raise ApiError(503, "cannot_write", "Outlay: the data folder cannot be written; nothing was changed.") from None


def _not_possible(what: str) -> ApiError:
    return ApiError(422, "not_possible", f"Outlay: {what}.")


# -- prices ------------------------------------------------------------------------------------------------------------


class WhichPrice(msgspec.Struct, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1, max_length=200, examples=["gpt-4.1"])]
    provider: (
        Annotated[str, Meta(min_length=1, max_length=200, description="What calls to it pay: openai, …")] | None
    ) = None
    at: Annotated[Moment, Meta(description="When rates are marked as counting; by default now.")] | None = None


class ModelPrices(msgspec.Struct):
    price_book: str
    at: datetime
    offers: list[Offer]


class OwnPriceInfo(msgspec.Struct):
    provider: str
    model: str
    service_tier: str | None
    valid_from: datetime | None
    valid_to: datetime | None
    price_id: str


class AliasInfo(msgspec.Struct):
    provider: str
    model: str
    to: str


class DiscountInfo(msgspec.Struct):
    provider: str
    model: str
    percent: Decimal
    valid_from: datetime | None
    valid_to: datetime | None


class PricePolicy(msgspec.Struct):
    """What is done without a price, and what `prices.toml` says. Rates of own prices are among a model's rates."""

    policy: Literal["block", "estimate", "allow"]
    price_book: str
    own_prices: list[OwnPriceInfo]
    aliases: list[AliasInfo]
    discounts: list[DiscountInfo]


class PricesApi:
    """The price book, which changes with its files alone."""

    def __init__(self, book: PriceBook, policy: Literal["block", "estimate", "allow"]) -> None:
        self._book = book
        self._policy = policy

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                method="GET", path="/-/api/v1/prices", access="viewer", summary="All rates of a model.",
                serve=self.get_prices, query=WhichPrice, answer=ModelPrices,
                refuses={404: "The price book has no such model.", 422: "A moment that no calendar has."},
            ),
            Endpoint(
                method="GET", path="/-/api/v1/prices/policy", access="viewer",
                summary="Own prices, names and discounts, and the policy.", serve=self.get_price_policy,
                answer=PricePolicy,
            ),
        ]  # fmt: skip

    async def get_prices(self, asked: Asked) -> ModelPrices:
        model, provider = asked.query.model, asked.query.provider
        try:
            at = datetime.now(UTC) if asked.query.at is None else asked.query.at.astimezone(UTC)
            found = await asyncio.to_thread(listing.at_sellers, self._book, model, provider, at)
        except OverflowError:
            raise _not_possible("at is too far away") from None
        if not found:
            near = listing.near(self._book, model)
            advice = f"; did you mean {', '.join(near)}?" if near else "; give it one in config/prices.toml."
            raise ApiError(404, "not_found", "Outlay: the price book has no such model" + advice)
        return ModelPrices(self._book.id, at, found)

    async def get_price_policy(self, asked: Asked) -> PricePolicy:
        own = self._book.overrides
        return PricePolicy(
            self._policy,
            self._book.id,
            [
                OwnPriceInfo(provider, model, each.service_tier, each.valid_from, each.valid_to, each.rate_set.price_id)
                for (provider, model), prices in own.prices.items()
                for each in prices
            ],
            [AliasInfo(provider, model, to) for (provider, model), to in own.aliases.items()],
            [DiscountInfo(d.provider, d.model, d.percent, d.valid_from, d.valid_to) for d in own.discounts],
        )
