"""What providers invoiced, kept by statement: provider, account and day. Later exports replace statements whole.

A statement may be spread over files: those of one import are read together. An estimate replaces no closed bill.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import duckdb
from msgspec import structs

from analytics import build, work
from analytics.sources.invoice_files import ATTO_IN_NANO, NO_ACCOUNT, NOTHING, OTHERS, Line
from gateway.call import NANO
from gateway.errors import UserError
from gateway.prices import PriceBook
from gateway.prices.names import plain

TABLE = "invoice_lines"

# -- models ------------------------------------------------------------------------------------------------------------

_COUNTED = re.compile(r"^.*\btoken count (?:for )?", re.IGNORECASE)
_METER = re.compile(
    r"\b(?:cached?|caching|input|output|uncached|usage|tokens?|batch|provisioned\w*|priority|flex|predictions?)\b.*$",
    re.IGNORECASE,
)
_MODALITY = re.compile(r"[ _-](?:text|image|audio|video)$", re.IGNORECASE)
_EDGE = re.compile(r"[ _.-]+(?:text|audio|video|speech|short|long|thinking|mantle|GA)$", re.IGNORECASE)
_JOINT = re.compile(r"(?<=[a-z])(?=[A-Z0-9])|(?<=\d)(?=[A-Z])")
"""Between words that are written as one: `Claude4.6Opus`."""
_PRICED = re.compile(r"^[^/]*/|[@#*&>+].*$")
"""What a `price_id` has around the model."""


def model_name(text: str) -> str:
    """The model that an item of an invoice names, as calls would: of `Claude Sonnet 4.5 - Input Tokens` it is
    `claude-sonnet-4.5`. Where the text names none, some other name comes out, which no model has."""
    return _cut(text).lower()


def _cut(text: str) -> str:
    name = _METER.sub("", _COUNTED.sub("", text.partition(",")[0].partition("(")[0])).rstrip(" _-:|/")
    # "Flash Image Input - Predictions" is an image that Flash reads; "Flash Image output image count" is another model.
    if "predictions" in text.lower():
        name = _MODALITY.sub("", name)
    while (shorter := _EDGE.sub("", name)) != name:
        name = shorter
    return re.sub(r"[\s_]+", "-", name).strip("-")


def _spellings(text: str) -> Iterator[str]:
    yield model_name(text)
    yield text.strip().lower()
    words = _JOINT.sub("-", _cut(text)).lower().split("-")
    yield "-".join(words)
    yield "-".join(sorted(words, key=lambda word: word[:1].isdecimal())).replace(".", "-")


def _are_alike(name: str, other: str) -> bool:
    """The same digits in their order and the same letters: see models/staging/model_keys.sql."""
    return _key(name) == _key(other)


def _key(name: str) -> tuple[str, list[str]]:
    short = plain(name.rpartition("/")[2])
    return ".".join(re.findall(r"\d+", short)).removesuffix(".0"), sorted(re.findall(r"[a-z]", short))


class Naming:
    """Finds models in the price book; remembers what it found."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._found: dict[tuple[str, str], tuple[str | None, bool]] = {}

    def __call__(self, line: Line) -> tuple[str | None, bool]:
        """The model's name, as the price book has it where it is known there, and whether it is."""
        if not line.model:
            return None, False
        if (key := (line.provider, line.model)) not in self._found:
            self._found[key] = self._look_up(line.provider, line.model, datetime.combine(line.day, time(12), UTC))
        return self._found[key]

    def _look_up(self, provider: str, text: str, at: datetime) -> tuple[str | None, bool]:
        for name in filter(None, _spellings(text)):
            if (rates := self._book.find(provider, name, at)) is not None:
                model = _PRICED.sub("", rates.price_id)
                # A guess may be another model of the family.
                if rates.status != "fallback" or _are_alike(name, model):
                    return model, True
        return model_name(text) or None, False


# -- statements --------------------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """A statement as it is stored."""

    amount_usd: Decimal
    is_final: bool


@dataclass
class Summary:
    """What an import did for one provider."""

    provider: str
    days: int = 0
    accounts: int = 0
    lines: int = 0
    amount_usd: Decimal = Decimal(0)
    replaced_days: int = 0
    replaced_usd: Decimal = Decimal(0)
    kept_final: int = 0
    """Statements left as they were: these are closed bills, and what came in is an estimate."""


@dataclass
class Sums:
    """Lines, summed exactly by statement, item and charge, in any order of rows and files."""

    rows: Counter[str] = field(default_factory=Counter)
    """Rows read, by kind of export."""
    other_rows: int = 0
    """Of other services."""
    _lines: dict[tuple[str, str, date, str, str], "_Sum"] = field(default_factory=dict)

    def add(self, source: str, lines: Iterable[Line]) -> None:
        self.rows[source] += 1
        is_other = False
        for line in lines:
            key = (line.provider, line.account, line.day, line.item, line.charge)
            if (found := self._lines.get(key)) is None:
                found = self._lines[key] = _Sum(line)
            found.atto += line.atto_usd
            found.rows += 1
            found.sources.add(source)
            found.models.add(line.model or "")
            found.finals.add(line.is_final)
            is_other = is_other or line.item == OTHERS
        self.other_rows += is_other

    def statements(self, naming: Callable[[Line], tuple[str | None, bool]]) -> dict[str, list[work.InvoiceLine]]:
        """Lines by statement. One without a charge has a line that says so."""
        made: dict[str, list[work.InvoiceLine]] = {}
        for _, each in sorted(self._lines.items(), key=lambda pair: (pair[1].line.charge == "none", pair[0])):
            lines = made.setdefault(f"{each.line.provider} {each.line.account} {each.line.day}", [])
            if each.line.charge != "none":
                lines.append(each.row(naming))
            elif not lines:
                lines.append(each.nothing())
        return made


class _Sum:
    def __init__(self, line: Line) -> None:
        self.line = line
        self.atto = self.rows = 0
        self.sources: set[str] = set()
        self.models: set[str] = set()
        self.finals: set[bool | None] = set()

    def row(self, naming: Callable[[Line], tuple[str | None, bool]]) -> work.InvoiceLine:
        model, is_known = naming(self.line._replace(model=min(filter(None, self.models), default=None)))
        return work.InvoiceLine(
            statement=f"{self.line.provider} {self.line.account} {self.line.day}",
            provider=self.line.provider,
            account=self.line.account,
            day=self.line.day,
            item=self.line.item,
            charge=self.line.charge,
            amount_usd=Decimal(_half_even(self.atto, ATTO_IN_NANO)) / NANO,
            rows=self.rows,
            source=min(self.sources),
            model=model,
            is_known_model=is_known,
            is_final=None if self.finals == {None} else self.finals == {True},
        )

    def nothing(self) -> work.InvoiceLine:
        row = self.row(lambda _: (None, False))
        return structs.replace(row, item=NOTHING, rows=0, is_final=None)


def _half_even(amount: int, unit: int) -> int:
    whole, rest = divmod(amount, unit)
    return whole + (2 * rest > unit or (2 * rest == unit and whole % 2 == 1))


def store(data: Path, made: dict[str, list[work.InvoiceLine]]) -> list[Summary]:
    """Replace statements. To be called under `work.alone`. Raises `UserError` where accounts cannot be told apart."""
    stored = _stored(data)
    _check_accounts(stored.keys(), made)
    summaries: dict[str, Summary] = {}
    accounts: dict[str, set[str]] = {}
    kept: list[work.InvoiceLine] = []
    for statement, lines in made.items():
        first = lines[0]
        summary = summaries.setdefault(first.provider, Summary(first.provider))
        old = stored.get(statement)
        if old is not None and old.is_final and any(line.is_final is False for line in lines):
            summary.kept_final += 1
            continue
        kept += lines
        accounts.setdefault(first.provider, set()).add(first.account)
        amount = sum((line.amount_usd for line in lines), Decimal(0))
        summary.days += 1
        summary.lines += sum(line.charge != "none" for line in lines)
        summary.amount_usd += amount
        if old is not None and old.amount_usd != amount:
            summary.replaced_days += 1
            summary.replaced_usd += old.amount_usd
    work.spool(data, TABLE, kept)
    work.store(data, TABLE)
    for provider, names in accounts.items():
        summaries[provider].accounts = len(names)
    return [summaries[provider] for provider in sorted(summaries)]


def _stored(data: Path) -> dict[str, Stored]:
    with duckdb.connect() as db:
        build.create_views(db, data, {TABLE: build.read_model(build.MODELS / "work" / f"{TABLE}.sql")})
        rows = db.execute(build.step("invoice_statements")).fetchall()
    return {statement: Stored(amount, is_final) for statement, amount, is_final in rows}


def _check_accounts(stored: Iterable[str], made: Iterable[str]) -> None:
    """One bill must not come in under two names, once with its account and once without."""
    names: dict[tuple[str, str], set[str]] = {}
    for provider, account, day in map(_parts, [*stored, *made]):
        names.setdefault((provider, day), set()).add(account)
    for (provider, day), accounts in sorted(names.items()):
        if NO_ACCOUNT in accounts and len(accounts) > 1:
            named = min(accounts - {NO_ACCOUNT})
            raise UserError(
                f"{provider} {day}: there are charges of the account {named}, and some whose export names no account, "
                f"which may be the same: give the account as it was with --account {NO_ACCOUNT}, or --account {named}. "
                "Nothing was imported."
            )


def _parts(statement: str) -> Iterator[str]:
    provider, _, rest = statement.partition(" ")
    account, _, day = rest.rpartition(" ")
    yield from (provider, account, day)
