"""What webhooks told of is read by `sync.follow`: the named tickets alone, other things by their repository."""

import threading
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self

import duckdb
import pytest

from analytics import build, sync, work
from analytics.beside import beside
from analytics.sources.source import Batch, Given, Part, SourceError, Tickets, among
from gateway import webhook_queue
from gateway.config import Config
from gateway.webhook_queue import WebhookQueue
from gateway.webhooks import Hint
from tests.trackers import BEGIN, pull

SHOP = "acme/shop"


class Forge:
    """A source with the tickets and pull requests of two repositories."""

    name = "github"
    asked: list[str]
    fails = False
    tickets: ClassVar = {f"{SHOP}#{number}": f"title {number}" for number in (1, 2)}

    def __init__(self, given: Given) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def now(self) -> datetime:
        return BEGIN

    def parts(self, projects: Collection[str] | None = None) -> Iterator[Part]:
        for repo in among((SHOP, "acme/api"), projects):
            tickets = Tickets(repo, self._ids, self._ticket)
            yield Part(f"{repo} issues", self._read(f"{repo} issues"), tickets, told_by=("ticket",))
            read = self._read(f"{repo} pulls", work.Row if repo == SHOP else None)
            yield Part(f"{repo} pulls", read, told_by=("pull_request",))

    def _ids(self) -> Iterator[Collection[str]]:
        yield list(self.tickets)

    def _ticket(self, ticket_id: str) -> Batch | None:
        self.asked.append(ticket_id)
        if self.fails:
            raise SourceError("out of reach")
        title = self.tickets.get(ticket_id)
        made = work.Ticket(ticket_id=ticket_id, source="github", project=SHOP, title=title or "")
        return Batch({"tickets": [made]}) if title else None

    def _read(self, name: str, pulls: object = None) -> Any:
        def read(cursor: Any, since: datetime | None) -> Iterator[Batch]:
            self.asked.append(name)
            yield Batch({"pull_requests": [pull(9)]} if pulls else {})

        return read


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work.prepare(_made(tmp_path / "data"))
    Forge.asked, Forge.fails = [], False
    monkeypatch.setattr(sync, "SOURCES", {"github": (lambda _: True, Forge)})
    return tmp_path / "data"


def _made(folder: Path) -> Path:
    (folder / "work").mkdir(parents=True)
    return folder


def tell(data: Path, *ids: str, kind: Any = "ticket", source: Any = "github") -> None:
    queue = WebhookQueue(data)
    for place, id_ in enumerate(ids):
        queue.put(Hint(source, f"{source} {kind} {id_} {place}", "event", kind, id_.partition("#")[0], id_))


def tickets(data: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect() as db:
        build.create_views(db, data, build.load(build.MODELS / "work"))
        return db.execute("SELECT ticket_id, title, status FROM tickets ORDER BY ALL").fetchall()


def test_named_tickets_are_read_once_however_often_they_were_told(data: Path) -> None:
    tell(data, f"{SHOP}#2", f"{SHOP}#1", f"{SHOP}#2")
    (outcome,) = sync.follow(data, Config())
    assert outcome.tables["tickets"].new == 2
    assert Forge.asked == [f"{SHOP}#2", f"{SHOP}#1"], "nothing else"
    assert tickets(data) == [(f"{SHOP}#1", "title 1", None), (f"{SHOP}#2", "title 2", None)]
    assert webhook_queue.waiting(data) == []
    assert sync.follow(data, Config()) == []
    tell(data, f"{SHOP}#1")
    sync.follow(data, Config())
    assert len(tickets(data)) == 2, "an older delivery that comes late doubles nothing"


def test_a_ticket_that_is_gone_is_deleted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(data, f"{SHOP}#1")
    sync.follow(data, Config())
    monkeypatch.setattr(Forge, "tickets", {})
    tell(data, f"{SHOP}#1", f"{SHOP}#5")
    sync.follow(data, Config())
    assert tickets(data) == [(f"{SHOP}#1", "title 1", "deleted")]


def test_other_things_are_read_of_their_repository(data: Path) -> None:
    tell(data, SHOP, kind="pull_request")
    sync.follow(data, Config())
    assert Forge.asked == [f"{SHOP} pulls"]
    assert webhook_queue.waiting(data) == []


def test_what_could_not_be_read_waits_and_what_is_not_configured_does_not(data: Path) -> None:
    tell(data, f"{SHOP}#1")
    tell(data, "PAY-7", source="jira")
    Forge.fails = True
    (outcome,) = sync.follow(data, Config())
    assert "out of reach" in outcome.failures[0]
    assert [each.hint.source for each in webhook_queue.waiting(data)] == ["github"]
    Forge.fails = False
    sync.sync(data, Config(), ["github"])
    assert webhook_queue.waiting(data) == [], "a sync reads it, too"


def test_a_project_is_read_once_in_a_while(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "PROJECT_SECONDS", 1e6)
    turns = sync.Turns()
    tell(data, f"{SHOP}#1")
    assert len(sync.follow(data, Config(), turns)) == 1
    tell(data, f"{SHOP}#2")
    tell(data, "acme/api", kind="pull_request")
    sync.follow(data, Config(), turns)
    assert Forge.asked == [f"{SHOP}#1", "acme/api pulls"]
    assert [each.hint.id for each in webhook_queue.waiting(data)] == [f"{SHOP}#2"]
    sync.follow(data, Config(), sync.Turns())
    assert webhook_queue.waiting(data) == []


def test_the_gateway_is_told_what_is_new_alone(data: Path) -> None:
    told = []
    for _ in range(2):
        tell(data, f"{SHOP}#1")
        (outcome,) = sync.follow(data, Config())
        told.append(outcome.is_news)
    assert told == [True, False]


def test_work_beside_goes_on_whatever_goes_wrong() -> None:
    told, stop, tries = list[str](), threading.Event(), iter([KeyError("a secret"), OSError("full"), None])

    def does() -> None:
        if (error := next(tries)) is None:
            stop.set()
        else:
            raise error

    with beside("test", does, 0.0, told.append, stop=stop, at_once=True):
        assert stop.wait(60)
    assert told == ["KeyError", "full"]
