"""What the tracker knows of tickets, as far as attribution needs it: `work/tracker.json` in the data folder.

The control plane writes it anew, by rename, after each import of tickets and pull requests; the gateway reads it again
within `ROUND_SECONDS`, in a thread. Without the file nothing is known and each ticket is `unchecked`. Each line is a
JSON object of some of the fields of `Snapshot`, so that decoding one holds nothing up.
"""

import asyncio
import logging
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec

from gateway.call import TicketState
from gateway.scopes import project_of

ROUND_SECONDS = 1.0
MAPPINGS = ("tickets", "aliases", "pulls", "branches", "commits")
"""Fields of `Snapshot` that may stand in several lines."""

log = logging.getLogger("outlay")


class Snapshot(msgspec.Struct, dict=True):
    """Tickets and what leads to them. Ticket ids as in the ledger: `PAY-123`, `acme/shop#45`."""

    synced_us: int = 0
    """When the tickets were last synced, microseconds since the epoch, UTC; 0 = never."""
    tickets: dict[str, Literal["open", "closed"]] = {}
    partial: list[str] = []
    """Projects of which not all tickets are here: one that is missing may be there."""
    aliases: dict[str, str] = {}
    """Former id of a ticket that was moved → its present one."""
    pulls: dict[str, tuple[str, ...]] = {}
    """`acme/shop#46` of a pull request, where it shares its numbers with tickets → its tickets."""
    branches: dict[str, dict[str, tuple[str, ...]]] = {}
    """Repository → head branch of an open pull request → its tickets."""
    commits: dict[str, tuple[str, ...]] = {}
    """Commit of an open pull request → its tickets."""

    @cached_property
    def newest(self) -> dict[str, int]:
        """Highest ticket number by project: `PAY`, `acme/shop`."""
        newest: dict[str, int] = {}
        for ticket in self.tickets:
            project, number = split(ticket)
            newest[project] = max(number, newest.get(project, 0))
        return newest

    @cached_property
    def projects(self) -> frozenset[str]:
        """Projects of which all tickets are here."""
        return frozenset(self.newest) - frozenset(self.partial)

    @cached_property
    def kinds(self) -> frozenset[bool]:
        """Kinds of trackers that were synced: those with keys (False), those with repositories (True)."""
        return frozenset("/" in project for project in self.projects)

    def state(self, ticket: str) -> TicketState:
        """What is known of a ticket. One with a number above all others of its project may have been made since the
        last sync: `unchecked`, like all tickets before the first one, and those of what is not or partly synced."""
        found = self.tickets.get(ticket)
        if found is not None:
            return "known" if found == "open" else "closed"
        project, number = split(ticket)
        newer = project in self.newest and number > self.newest[project]
        is_whole = ("/" in project) in self.kinds and project not in self.partial
        return "unknown" if is_whole and not newer else "unchecked"


def split(ticket: str) -> tuple[str, int]:
    """Project and number of a ticket: `PAY-123` → (`PAY`, 123). A ticket of another form is its own project."""
    project = project_of(ticket)
    number = ticket[len(project) + 1 :]
    return (project, int(number)) if 0 < len(number) < 10 else (ticket, 0)


class Tracker:
    """The snapshot of one data folder, kept current."""

    def __init__(self, data_dir: Path) -> None:
        self.now = Snapshot()
        """Replaced whole."""
        self._file = data_dir / "work" / "tracker.json"
        self._seen: tuple[int, int] | None = None

    def refresh(self) -> None:
        """Read the file again when it changed. A file that cannot be read leaves what was known."""
        try:
            stat = self._file.stat()
            if (seen := (stat.st_ino, stat.st_mtime_ns)) == self._seen:
                return
            self._seen = seen
            self.now = _read(self._file)
        except FileNotFoundError:
            self.now, self._seen = Snapshot(), None
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            log.error("%s cannot be read, what was known of tickets stays: %s", self._file, type(error).__name__)

    async def keep(self) -> None:
        """Run beside the server."""
        while True:
            await asyncio.to_thread(self.refresh)
            await asyncio.sleep(ROUND_SECONDS)


def _read(file: Path) -> Snapshot:
    whole, decoder = Snapshot(), msgspec.json.Decoder(Snapshot)
    with file.open("rb") as lines:
        for line in lines:
            part = decoder.decode(line)
            whole.synced_us = max(whole.synced_us, part.synced_us)
            whole.partial += part.partial
            for name in MAPPINGS:
                getattr(whole, name).update(getattr(part, name))
    _ = whole.newest, whole.kinds  # now, not in a request
    return whole
