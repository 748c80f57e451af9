"""`outlay prices`: what the price book says, what a new one changes, and re-rating past calls with it."""

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import msgspec
from rich.console import Console
from rich.progress import Progress

import analytics
from analytics import build, commands, disk, rerating
from analytics.again import again
from gateway import prices
from gateway.call import NANO
from gateway.config import Config
from gateway.errors import UserError
from gateway.ledger import write_corrections
from gateway.options import CONFIG, config_option, data_folder, json_option, settings
from gateway.prices import listing
from gateway.prices.overrides import Overrides
from gateway.prices.rates import RateSet

SPEND_DAYS = 90
"""A change of price matters where money was spent in so many days."""
NOTABLE_PERCENT = 1
PROGRESS_SECONDS = 2.0

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Data folder, for past spend.  [default: [ledger] dir of the settings, if it is there]",
)
T = TypeVar("T")


@click.group(name="prices")
def prices_() -> None:
    """The price book, and what a change of it does to past spend."""


# -- show ------------------------------------------------------------------------------------------------------------


@prices_.command()
@click.argument("model")
@click.option("--provider", help="Only what calls to this provider pay: openai, anthropic, gcp.gemini, …")
@click.option(
    "--at",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
    help="Moment, UTC, at which rates are marked as counting.  [default: now]",
)
@config_option
@json_option
def show(model: str, provider: str | None, at: datetime | None, config_path: Path | None, as_json: bool) -> None:
    """All rates of MODEL: by provider, service tier, time and context length. USD per million tokens."""
    book = prices.load_prices(settings(config_path))
    moment = at.replace(tzinfo=UTC) if at else datetime.now(UTC)
    found = listing.at_sellers(book, model, provider, moment)
    is_new = provider and provider.lower() not in book.providers and all(offer.status == "fallback" for offer in found)
    if not found:
        near = listing.near(book, model)
        at_whom = f" of {provider}" + (", a provider that it does not know" if is_new else "") if provider else ""
        advice = f"did you mean {', '.join(near)}?" if near else "give it a price in config/prices.toml"
        if any(book.find(name, model, moment) for name in book.providers):
            advice += "; calls are priced by a guess, which --provider shows"
        raise UserError(f"the price book has no model {model}{at_whom}; {advice}")
    if is_new:
        click.echo(f"the price book does not know a provider {provider}: these are guesses", err=True)
    if as_json:
        commands.print_json(found)
        return
    main = ("input", "cache_read", "cache_write", "cache_write_1h", "output")
    rows = [
        [
            "→" if offer.counts else "",
            offer.provider,
            offer.model,
            offer.service_tier,
            _moment(offer.valid_from) or "ever",
            f"> {offer.over_input_tokens:,}" if offer.over_input_tokens else "",
            *(offer.usd_per_million.get(name) for name in main),
            ", ".join(
                [
                    *(
                        f"{k} {commands.usd(v)}"
                        for k, v in offer.usd_per_million.items()
                        if k not in main and _differs(offer, k)
                    ),
                    *(f"{k} {commands.usd(v)} each" for k, v in offer.usd_each.items()),
                    *(f"{k} {commands.usd(v)} once" for k, v in offer.usd_once.items()),
                ]
            ),
            offer.status,
            offer.price_id,
        ]
        for offer in found
    ]
    columns = ("", "provider", "model", "tier", "since", "input tokens", *main, "others", "status", "price_id")
    commands.print_table(columns, rows, first=("model", "tier", "input", "output"))
    click.echo(f"USD per million tokens. → counts at {moment:%Y-%m-%d %H:%M} UTC. {book.id}")


def _differs(offer: listing.Offer, name: str) -> bool:
    """False where a kind of tokens costs what plain ones do."""
    usd = offer.usd_per_million
    plain = "cache_read" if name.startswith("cache_read") else "output" if name.startswith("output") else "input"
    return usd[name] != usd.get(plain)


# -- diff and check --------------------------------------------------------------------------------------------------


@prices_.command()
@click.argument("a")
@click.argument("b")
@data_option
@json_option
def diff(a: str, b: str, data: Path | None, as_json: bool) -> None:
    """What differs between two price snapshots, files or ids of shipped ones, and the spend that it touches."""
    old, new = _snapshot(a), _snapshot(b)
    found = listing.changes(old, new, datetime.now(UTC))
    _print_changes(found, _spend(_spend_by_names(_folder(data)), old, new), as_json)


@prices_.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--yes", is_flag=True, help=f"Accept changes of more than {NOTABLE_PERCENT} % of prices in use.")
@data_option
@json_option
def check(file: Path | None, yes: bool, data: Path | None, as_json: bool) -> None:
    """Validate a price snapshot: its shape and hash, its rates, and what it changes against the shipped one.

    Without FILE, the shipped one is validated.
    """
    new = _snapshot(str(file or prices.DEFAULT_BOOK))
    old = _snapshot(str(prices.DEFAULT_BOOK))
    found = listing.changes(old, new, datetime.now(UTC))
    folder = _folder(data)
    calls = _spend_by_names(folder)
    spend = _spend(calls, old, new)
    notable = {(c.provider, c.model) for c in found if _is_notable(c)} & spend.keys()
    renamed = _renamed(calls, old, new)
    if as_json:
        commands.print_json(
            {
                "price_book": new.id,
                "providers": len(new.lists),
                "models": sum(len(provider.models) for provider in new.lists.values()),
                "changes": [_with_spend(change, spend) for change in found],
                "to_confirm": [{"provider": p, "model": m, "spend_usd": spend[p, m]} for p, m in sorted(notable)],
                "renamed": renamed,
            }
        )
    else:
        if found:
            _print_changes(found, spend, as_json=False)
        for name in renamed:
            before, after = (model or "no model" for model in (name.old, name.new))
            click.echo(f"{name.provider}: {name.model} was taken for {before} and is for {after}.")
        models = sum(len(provider.models) for provider in new.lists.values())
        click.echo(f"{new.id}: {models} models of {len(new.lists)} providers; hash, shape and rates are sound.")
        if folder is None:
            click.echo(f"There is no data folder {settings(None).ledger.dir}, so past spend was not looked at.")
    if (notable or renamed) and not yes:
        confirm = notable | {(name.provider, name.model) for name in renamed}
        names = ", ".join(f"{provider}/{model}" for provider, model in sorted(confirm))
        raise UserError(
            f"prices change by more than {NOTABLE_PERCENT} %, or the models that names stand for, where money was "
            f"spent in the last {SPEND_DAYS} days: {names}; look at the changes, then accept them with --yes"
        )


def _is_notable(change: listing.Change) -> bool:
    if change.what == "changed":
        return change.percent is None or abs(change.percent) > NOTABLE_PERCENT
    return change.what == "removed"


def _snapshot(name: str) -> prices.PriceBook:
    """A snapshot by its file, or a shipped one by its id or the start of it. Without supplement and own prices."""
    return _bare(_snapshot_file(name))


def _snapshot_file(name: str) -> Path:
    if Path(name).exists():
        return Path(name)
    shipped = {_bare(path).id: path for path in prices.DEFAULT_BOOK.parent.glob("*.json.gz")}
    found = [path for id_, path in shipped.items() if id_.startswith(name) or name.startswith(id_)]
    if len(found) != 1:
        raise UserError(f"there is no price snapshot {name}: name a file, or one of {', '.join(shipped)}")
    return found[0]


def _bare(path: Path) -> prices.PriceBook:
    try:
        return prices.PriceBook.load(path, supplement=None)
    except ValueError as error:
        raise UserError(str(error)) from None


Spend = dict[tuple[str, str], Decimal]
"""USD by provider and model, as snapshots call them."""


class Spent(NamedTuple):
    """Spend on the calls of two names."""

    provider: str
    names: tuple[str, ...]
    """The served name first, then the requested one, as a call is looked up."""
    usd: Decimal

    def found(self, book: prices.PriceBook) -> RateSet | None:
        """Their rates now: by a name that the book knows, rather than by a guess."""
        rates = [found for name in self.names if (found := book.find(self.provider, name, datetime.now(UTC)))]
        return next((each for each in rates if not each.guessed_model), rates[0] if rates else None)


class Renamed(msgspec.Struct, frozen=True):
    """A name with spend that two books take for different models."""

    provider: str
    model: str
    old: str | None
    new: str | None
    spend_usd: Decimal


def _spend_by_names(data: Path | None) -> list[Spent]:
    """List cost of the last days."""
    if data is None:
        return []
    since = (datetime.now(UTC) - timedelta(days=SPEND_DAYS)).replace(tzinfo=None)
    with analytics.open(data) as db:
        rows = again(lambda: db.execute(build.step("spend_by_names"), {"since": since}).fetchall())
    return [Spent(provider, tuple(filter(None, names)), usd) for provider, *names, usd in rows]


def _spend(calls: Iterable[Spent], *books: prices.PriceBook) -> Spend:
    """By the model that each book finds for a call."""
    spend: Spend = {}
    for spent in calls:
        found = [spent.found(book) for book in books]
        for key in {(rates.provider, rates.model) for rates in found if rates}:
            spend[key] = spend.get(key, Decimal(0)) + spent.usd
    return spend


def _renamed(calls: Iterable[Spent], old: prices.PriceBook, new: prices.PriceBook) -> list[Renamed]:
    found: list[Renamed] = []
    for spent in calls:
        before, after = (_called(spent.found(book)) for book in (old, new))
        if before != after:
            found.append(Renamed(spent.provider, spent.names[0], before, after, spent.usd))
    return found


def _called(rates: RateSet | None) -> str | None:
    return None if rates is None else f"{rates.provider}/{rates.model}" + (" (a guess)" if rates.guessed_model else "")


def _with_spend(change: listing.Change, spend: Spend) -> dict[str, Any]:
    percent = None if change.percent is None else round(change.percent, 2)
    spent = spend.get((change.provider, change.model))
    return {**msgspec.structs.asdict(change), "percent": percent, "spend_usd": spent}


def _print_changes(changes: Sequence[listing.Change], spend: Spend, as_json: bool) -> None:
    rows = [_with_spend(change, spend) for change in changes]
    if as_json:
        commands.print_json(rows)
    elif not rows:
        click.echo("The two say the same.")
    else:
        columns = ("what", "provider", "model", "tier", "input tokens", "rates", "since", "old", "new", "%")
        commands.print_table(
            (*columns, f"USD spent, {SPEND_DAYS} days"),
            [
                [
                    row["what"],
                    row["provider"],
                    row["model"],
                    row["service_tier"] or "",
                    f"> {row['over_input_tokens']:,}" if row["over_input_tokens"] else "",
                    ", ".join(row["rates"]),
                    _moment(row["since"]) or ("ever" if row["what"] == "changed" else ""),
                    row["old"],
                    row["new"],
                    row["percent"],
                    row["spend_usd"],
                ]
                for row in rows
            ],
        )


# -- rerate ----------------------------------------------------------------------------------------------------------


@prices_.command()
@click.option("--from", "from_", type=click.DateTime(["%Y-%m-%d"]), required=True, help="First day, UTC.")
@click.option("--to", type=click.DateTime(["%Y-%m-%d"]), required=True, help="Last day, UTC.")
@click.option("--book", "snapshot", help="Price snapshot: a file, or the id of a shipped one.  [default: the newest]")
@click.option("--apply", "apply_", is_flag=True, help="Write the corrections. Without it, nothing is written.")
@click.option("--data", type=click.Path(path_type=Path), help="Data folder.  [default: [ledger] dir of the settings]")
@config_option
@json_option
def rerate(
    from_: datetime,
    to: datetime,
    snapshot: str | None,
    apply_: bool,
    data: Path | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """What past calls would cost with today's prices; with --apply, correct them. What was recorded stays."""
    if from_ > to:
        raise click.UsageError("--from is after --to")
    config = settings(config_path)
    if apply_ and config.file is None:
        raise UserError(
            f"there is no {CONFIG} here, so that own prices and discounts would be missing: name the settings file of "
            "the gateway with --config"
        )
    data = data_folder(config, data)
    shipped = prices.load_prices(config)
    book = prices.load_prices(config, _snapshot_file(snapshot)) if snapshot else shipped
    known = {other.id: other for other in (shipped, *(each.with_overrides(Overrides()) for each in (book, shipped)))}
    span = rerating.Span(from_.date(), to.date(), datetime.now(UTC))
    calls, guesses = rerating.count(data, span), config.prices.policy != "allow"

    def outcomes(what: str) -> Iterator[rerating.Rerated | rerating.Kept]:
        return _watched(rerating.outcomes(data, span, book, guesses=guesses, known=known.values()), calls, what)

    summary = rerating.Summary()
    for outcome in outcomes("Computing"):
        summary.add(outcome)
    if not as_json:
        _print_summary(summary, book)
        click.echo(f"Own prices and discounts: {_overrides(config, book)}.")
    written = 0
    if apply_ and summary.lines:
        journal = commands.journal_settings(config, data)
        found = (each.correction() for each in outcomes("Correcting") if isinstance(each, rerating.Rerated))
        try:
            with commands.tidy_when_terminated(), disk.correcting(data):
                written = write_corrections(journal, found, f"rerate-{secrets.token_hex(4)}")
        except OSError as error:
            raise UserError(
                f"{data} cannot be written: {error.strerror}; some corrections may be missing: the same command, run "
                "again, writes what is missing"
            ) from None
    if as_json:
        commands.print_json({"price_book": book.id, **_summary(summary), "corrections_written": written})
    elif summary.lines:
        click.echo(
            f"{written:,} corrections were written." if apply_ else "Nothing was written; --apply corrects them."
        )


def _overrides(config: Config, book: prices.PriceBook) -> str:
    """Which file of own prices counts."""
    if config.file is None:
        return f"none, for there is no {CONFIG} here"
    path = Path(config.file).parent / (config.prices.overrides or "prices.toml")
    return str(path) if "+" in book.id else f"none in {path}"


def _summary(summary: rerating.Summary) -> dict[str, Any]:
    changes = [
        {
            "model": model,
            "cause": cause,
            "calls": line.calls,
            "unpriced_calls_before": line.unpriced_before,
            "list_cost_before_usd": Decimal(line.list_before) / NANO,
            "list_cost_after_usd": Decimal(line.list_after) / NANO,
            "contracted_cost_before_usd": Decimal(line.contracted_before) / NANO,
            "contracted_cost_after_usd": Decimal(line.contracted_after) / NANO,
        }
        for (model, cause), line in sorted(
            summary.lines.items(), key=lambda item: -abs(item[1].list_after - item[1].list_before)
        )
    ]
    return {"changes": changes, "unchanged_calls": summary.unchanged, "left_calls": dict(summary.left)}


def _print_summary(summary: rerating.Summary, book: prices.PriceBook) -> None:
    rows = _summary(summary)["changes"]
    if rows:
        names = ("model", "cause", "calls", "unpriced before", "list before", "list after", "change")
        amounts = [
            [
                row["model"],
                row["cause"],
                row["calls"],
                row["unpriced_calls_before"] or "",
                *(_nine(row[f"list_cost_{when}_usd"]) for when in ("before", "after")),
                _nine(row["list_cost_after_usd"] - row["list_cost_before_usd"]),
                *(_nine(row[f"contracted_cost_{when}_usd"]) for when in ("before", "after")),
            ]
            for row in rows
        ]
        commands.print_table((*names, "contracted before", "contracted after"), amounts)
    changed = sum(row["calls"] for row in rows)
    click.echo(f"{changed:,} calls change, {summary.unchanged:,} cost the same with {book.id}.")
    for reason, calls in summary.left.most_common():
        click.echo(f"{calls:,} calls stay as they are: {rerating.REASONS[reason]}.")


# -- output and input ------------------------------------------------------------------------------------------------


def _folder(data: Path | None) -> Path | None:
    """`None` where none is named, and that of the settings is not there."""
    folder = data_folder(settings(None), data)
    return folder if data or folder.is_dir() else None


def _watched(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items, with a progress bar when they take long."""
    start, shown = time.monotonic(), False
    progress = Progress(console=Console(stderr=True), transient=True)
    task = progress.add_task(what, total=total)
    try:
        for number, item in enumerate(items, 1):
            if number % 1000 == 0:
                if not shown and time.monotonic() - start > PROGRESS_SECONDS:
                    progress.start()
                    shown = True
                progress.update(task, completed=number)
            yield item
    finally:
        if shown:
            progress.stop()


def _nine(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.000000001"))


def _moment(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
