"""Waste: gives the rules (models/waste/*.sql) their thresholds and prices, keeps what they find, takes down reviews.

The rules are functions of the calls, the work tables, the thresholds and the moment of judgement; none asks a clock.
What they find is kept below `findings/` as of a stated moment, so that reports and pages read it at once; nothing that
a rule finds is lost when those files are, for all but the reviews is worked out again. Reviews are a line each in
`findings/reviews.jsonl`, which belongs into backups.
"""

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import duckdb
import msgspec

from analytics import build, disk, kept
from gateway import hashing
from gateway.config import WasteSettings
from gateway.prices import PriceBook

RULES = tuple(f"W{number:02}" for number in range(1, 19))
VERSIONS = dict.fromkeys(RULES, "1")
"""Of the SQL: another text of a rule that finds something else has another one."""
READ_IN_PART = {"waste_paid_calls"}
"""Not worked out for all calls: rules want it of a few."""
WINDOWED = ("W08", "W11", "W13")
"""Rules that compare with what was usual in the window."""
ASIDE = ("every_minutes", "notice_usd")
"""Settings that no finding depends on."""
KEPT = kept.Kind("findings", "findings/findings.lock")
SQL_TYPES: Mapping[Any, str] = {int: "BIGINT", float: "DOUBLE", str: "VARCHAR", Decimal: "DECIMAL(18,9)"}


def folder(data: Path) -> Path:
    return data / "findings"


def file(data: Path, table: str) -> Path:
    """Of `settings`, `found` and `claims`."""
    return folder(data) / f"{table}.parquet"


def rates_file(data: Path) -> Path:
    return data / "prices" / "rates.parquet"


def reviews_file(data: Path) -> Path:
    return folder(data) / "reviews.jsonl"


def alone(data: Path) -> contextlib.AbstractContextManager[bool]:
    return disk.alone(data, KEPT.lock, wait=True)


# -- what the rules judge by -------------------------------------------------------------------------------------------


def parameters(settings: WasteSettings, rule: str) -> dict[str, Any]:
    """The thresholds of a rule, by the names of their settings."""
    names = [name for name in settings.__struct_fields__ if name.startswith(rule.lower())]
    return {name: getattr(settings, name) for name in [*names, *(["window_days"] if rule in WINDOWED else [])]}


def judged_by(settings: WasteSettings, book: PriceBook) -> str:
    """Another text when findings would be others, for settings or prices."""
    terms = {name: getattr(settings, name) for name in settings.__struct_fields__ if name not in ASIDE}
    plain = {name: value.normalize() if isinstance(value, Decimal) else value for name, value in terms.items()}
    return f"{_json(plain)} {book.id}"


def version(settings: WasteSettings, rule: str) -> str:
    """Of a rule: another threshold is another version."""
    own = parameters(settings, rule)
    mark = "" if own == parameters(WasteSettings(), rule) else f"-{sha256(_json(own).encode()).hexdigest()[:6]}"
    return VERSIONS[rule] + mark


def _json(value: Any) -> str:
    return msgspec.json.Encoder(decimal_format="number", order="sorted").encode(value).decode()


def _shape() -> str:
    return _json({name: _sql_type(hint) for name, hint in get_type_hints(WasteSettings).items()})


def _sql_type(hint: Any) -> str:
    inner = [_sql_type(each) for each in get_args(hint) if each is not ...]
    if get_origin(hint) is tuple:
        return f"{inner[0]}[]"
    return f"MAP({', '.join(inner)})" if get_origin(hint) is dict else SQL_TYPES[hint]


def _read_settings(db: duckdb.DuckDBPyConnection, settings: WasteSettings, looked_at: datetime | None) -> None:
    rows = {
        "looked_at": looked_at,
        "settings": _json(settings),
        "shape": _shape(),
        "versions": _json({rule: version(settings, rule) for rule in RULES}),
        "parameters": _json({rule: _json(parameters(settings, rule)) for rule in RULES}),
    }
    db.execute(build.step("read_waste_settings"), rows)


def _read_rates(db: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> None:
    db.execute(build.step("read_model_rates"), {"rows": _json(rows)})


def rates(
    book: PriceBook, used: list[tuple[str | None, str]], settings: WasteSettings, at: datetime
) -> Iterator[dict[str, Any]]:
    """What the price book says of models that were used, and of the cheaper ones that they are compared with.

    Where the provider is not known, or calls the cheaper one otherwise, the price is of whoever has it by this name."""
    cheaper = {(provider, model) for provider, _ in used for model in settings.w10_cheaper.values()}
    for provider, model in sorted({*used, *cheaper}, key=lambda name: (name[0] or "", name[1])):
        others = book.sellers(model) if provider is None or (provider, model) in cheaper else []
        found = [book.find(seller, model, at) for seller in filter(None, (provider, *others))]
        sure = next((each for each in found if each is not None and not each.guessed_model), None)
        if sure is not None:
            of = sure.bands[0].rates
            per_million = {
                f"{name}_rate": None if rate is None else int(rate * 1_000_000)
                for name in ("input", "cache_read", "cache_write", "output")
                for rate in (getattr(of, name),)
            }
            yield {"provider": provider, "model": model, **per_million}


# -- files -------------------------------------------------------------------------------------------------------------


def prepare(data: Path) -> None:
    """Make what the views of waste need to be there: the shipped thresholds, and nothing found. What another version
    has left, with other columns, is begun anew."""
    with alone(data), duckdb.connect() as db:
        if not reviews_file(data).exists():
            with disk.put(reviews_file(data)) as aside:
                aside.touch()
        _read_settings(db, WasteSettings(), None)
        anew = [kept.write_unless_alike(db, file(data, "settings"))]
        _read_rates(db, [])
        anew.append(kept.write_unless_alike(db, rates_file(data)))
        for table in ("found", "claims"):
            db.execute(build.step(f"empty_{table}"))
            anew.append(kept.write_unless_alike(db, file(data, table)))
        if any(anew):
            kept.forget(data, KEPT)


# -- looking for waste -------------------------------------------------------------------------------------------------


def find(db: duckdb.DuckDBPyConnection, data: Path, settings: WasteSettings, book: PriceBook, as_of: datetime) -> None:
    """Make tables in `db`, a `lake.scratch`, of what the rules find as of a moment (UTC, without a zone)."""
    db.execute("SET VARIABLE judged_at = $as_of", {"as_of": as_of})
    db.execute("SET VARIABLE caller_key = $key", {"key": hashing.keyed(hashing.load_key(data), "callers of findings")})
    _read_settings(db, settings, as_of)
    db.table("found").create("waste_settings")
    rules = build.load(build.ON_DEMAND)
    models = build.load()
    given = {name: models.pop(name) for name in ("waste_settings", "model_rates")}
    read = build.needed(db, models, {**rules, **given})
    calls = {name: rules.pop(name) for name in ("waste_terms", "waste_calls")}
    build.create_views(db, data, {**read, **calls}, calls)
    used = db.execute(build.step("used_models")).fetchall()
    _read_rates(db, list(rates(book, used, settings, as_of.replace(tzinfo=UTC))))
    db.table("found").create("model_rates")
    build.create_views(db, data, rules, rules.keys() - READ_IN_PART)


class News(NamedTuple):
    """What a look found that was not there before; nothing, where one as of a later moment had been."""

    as_of: datetime
    findings: int
    claimed_nano: int


def look(
    db: duckdb.DuckDBPyConnection, data: Path, settings: WasteSettings, book: PriceBook, as_of: datetime | None
) -> News:
    """Look for waste as of a moment, by default now, and keep what is found. Raises `duckdb.Error`, `OSError`."""
    with kept.noting(data, KEPT, as_of, judged_by(settings, book)) as moment:
        find(db, data, settings, book, moment)
        last = {table: build.glob_of(file(data, table)) for table in ("settings", "found")}
        [(looked_at, *news)] = db.execute(build.step("new_findings"), last).fetchall()
        kept.spoil(data, KEPT)
        for table, path in {
            "model_rates": rates_file(data),
            "waste_claims": file(data, "claims"),
            "waste_found": file(data, "found"),
            "waste_settings": file(data, "settings"),
        }.items():
            disk.put_table(db.table(table), path)
    return News(moment, *news) if looked_at is None or moment > looked_at else News(moment, 0, 0)
