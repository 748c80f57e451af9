"""Keys: which there are, what each spends, making and revoking them: by the admin API's own code."""

from typing import get_args

from aiohttp import web

from analytics.web.tickets import days_chart
from analytics.web.visit import Page, Visit, api, end_of_day, form_body
from gateway.admin_api import KeyHistory, KeyList, MadeKey, NewKey, Revocation
from gateway.call import Purpose, Role, TicketPolicy

STATES = {"active": "In force", "revoked": "Revoked", "expired": "Over", "": "All"}
FIELDS = ("name", "team_id", "user_id", "ticket", "ticket_policy", "purpose", "role", "kind")
CHOICES = {"purpose": get_args(Purpose), "role": get_args(Role), "ticket_policy": get_args(TicketPolicy)}


async def keys(visit: Visit) -> web.Response:
    state = visit.request.query.get("state", "active")
    state = state if state in STATES else "active"
    listed: KeyList = await api(visit, "GET /-/api/v1/keys")
    asked = visit.request.query.get("q", "").strip()
    return _list(visit, listed, state, asked=asked)


def _list(visit: Visit, listed: KeyList, state: str, *, asked: str = "", made: MadeKey | None = None) -> web.Response:
    """By their ids: they are not ranked."""
    kept = [
        key
        for key in listed.keys
        if state in ("", key.state)
        and asked.lower() in " ".join(filter(None, (key.key_id, key.name, key.team_id, key.role))).lower()
    ]
    return visit.show(
        "keys.html", keys=sorted(kept, key=lambda key: key.key_id), state=state, states=STATES, choices=CHOICES,
        made=made, count=len(listed.keys), asked=asked,
    )  # fmt: skip


async def key(visit: Visit) -> web.Response:
    key_id = visit.request.match_info["key_id"]
    found: KeyHistory = await api(visit, "GET /-/api/v1/keys/{key_id}", {"key_id": key_id})
    spent = await visit.ask("console/key_days", key=key_id)
    return visit.show(
        "key.html", found=found, under="/keys", done=visit.request.query.get("done") == "revoked",
        **days_chart(spent, "console/key_days", {"key": key_id}),
    )  # fmt: skip


async def make(visit: Visit) -> web.Response:
    form = visit.form
    body: dict[str, object] = {field: form[field].strip() for field in FIELDS if form.get(field, "").strip()}
    for field in ("models", "upstreams"):
        if given := [each.strip() for each in form.get(field, "").split(",") if each.strip()]:
            body[field] = given
    if form.get("expires", "").strip():
        body["expires_at"] = end_of_day("Expires", form["expires"])
    made: MadeKey = await api(visit, "POST /-/api/v1/keys", {}, form_body(body, NewKey))
    listed: KeyList = await api(visit, "GET /-/api/v1/keys")
    return _list(visit, listed, "active", made=made)


async def revoke(visit: Visit) -> web.Response:
    key_id = visit.request.match_info["key_id"]
    await api(visit, "POST /-/api/v1/keys/{key_id}/revoke", {"key_id": key_id}, Revocation())
    raise web.HTTPSeeOther(f"/keys/{key_id}?done=revoked")


PAGES = [
    Page("GET", "/keys", "viewer", keys),
    Page("POST", "/keys", "admin", make),
    Page("GET", "/keys/{key_id}", "viewer", key),
    Page("POST", "/keys/{key_id}/revoke", "admin", revoke),
]
