"""Make a price snapshot for `gateway/price_books` from the data of the installed genai-prices package.

    python tools/price_snapshot.py --created-at 2026-11-24 --out gateway/price_books

Deterministic: the same package and the same `--created-at` give the same bytes. The file is gzip (mtime 0) around two
lines of JSON: a header (source, source_version, created_at, licence, sha256 of the second line) and the payload. Rates
are USD as decimal strings, times are UTC; `gateway/prices/snapshot.py` describes the rest. Left out are the parts that
are no prices: names, descriptions, comments, links, and the rules that read usage from answers.
"""

import argparse
import datetime
import gzip
import hashlib
import importlib.metadata
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from genai_prices import types
from genai_prices.data import providers
from genai_prices.data_units import unit_data

SOURCE = "genai-prices"
LICENCE = "MIT"


def snapshot(created_at: datetime.date) -> tuple[str, bytes]:
    """The file's name and bytes."""
    version = importlib.metadata.version(SOURCE)
    payload = _json({"units": _units(), "providers": [_provider(provider) for provider in providers]})
    header = {
        "source": SOURCE,
        "source_version": version,
        "created_at": created_at.isoformat(),
        "licence": LICENCE,
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    return f"{SOURCE}-{version}.json.gz", gzip.compress(_json(header) + b"\n" + payload + b"\n", 9, mtime=0)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _stated(**fields: Any) -> dict[str, Any]:
    """Without the fields that say nothing. Trailing `_` is there only because the name is a keyword."""
    return {name.rstrip("_"): value for name, value in fields.items() if value not in (None, [], {})}


def _units() -> dict[str, int]:
    """Price key → how many units the rate is for."""
    return {unit["price_key"]: unit["per"] for unit in unit_data.values()}


def _provider(provider: types.Provider) -> dict[str, Any]:
    return _stated(
        id=provider.id,
        match=_clause(provider.provider_match),
        fallback=provider.fallback_model_providers,
        models=[_model(model) for model in provider.models],
    )


def _model(model: types.ModelInfo) -> dict[str, Any]:
    prices = model.prices if isinstance(model.prices, list) else [types.ConditionalPrice(prices=model.prices)]
    return _stated(
        id=model.id,
        match=_clause(model.match),
        periods=[_period(price.constraint, price.prices) for price in prices],
        variants=[_period(v.constraint, v.prices) | {"when": v.when} for v in model.price_variants or []],
    )


def _period(constraint: object, prices: types.ModelPrice) -> dict[str, Any]:
    rates = {key: _rate(value) for key, value in sorted(vars(prices).items()) if value is not None}
    match constraint:
        case None:
            return _stated(rates=rates)
        case types.StartDateConstraint():
            return _stated(from_=constraint.start_date.isoformat(), rates=rates)
        case types.TimeOfDateConstraint():
            return _stated(daily=[_utc(constraint.start_time), _utc(constraint.end_time)], rates=rates)
        case _:
            raise ValueError(f"unknown constraint {type(constraint).__name__}: teach this tool and the book about it")


def _rate(value: Any) -> Any:
    """`"1.25"`, or `["1.25", [[200000, "2.5"]]]`: base, then the rate of the whole call above so many input tokens."""
    if isinstance(value, types.TieredPrices):
        return [_decimal(value.base), [[tier.start, _decimal(tier.price)] for tier in value.tiers]]
    return _decimal(value)


def _decimal(value: Decimal) -> str:
    return f"{value.normalize():f}"


def _utc(value: datetime.time) -> str:
    if value.utcoffset() not in (None, datetime.timedelta(0)):
        raise ValueError(f"time of day {value} is not UTC")
    return value.strftime("%H:%M:%S")


def _clause(clause: Any) -> Any:
    """A match rule as `{"equals": …}`, `{"starts_with": …}`, … , `{"or": […]}`."""
    if clause is None:
        return None
    ((name, value),) = vars(clause).items()
    return {name.rstrip("_"): [_clause(inner) for inner in value] if isinstance(value, list) else value}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--created-at", type=datetime.date.fromisoformat, required=True, metavar="YYYY-MM-DD")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    name, data = snapshot(arguments.created_at)
    path = arguments.out / name
    path.write_bytes(data)
    print(f"{path}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
