"""`outlay import invoice`: what providers charged, from the files that they export."""

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from hashlib import file_digest
from pathlib import Path

import click
import duckdb

from analytics import commands, invoices, work
from analytics.sources import files, invoice_files
from analytics.sources.files import Problems
from gateway import prices
from gateway.errors import UserError
from gateway.options import config_option, data_option, json_option, settings


@click.command(name="invoice")
@click.argument("paths", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--account", help="Account that is billed, for all lines: where exports do not say, or to overrule them.")
@click.option("--usd-per", "rates", metavar="CUR=RATE", multiple=True, help="USD for one unit of another currency.")
@click.option("--skip-bad", is_flag=True, help="Leave out rows that are wrong.")
@config_option
@data_option
@json_option
def import_invoice(
    paths: Sequence[Path],
    account: str | None,
    rates: Sequence[str],
    skip_bad: bool,
    config_path: Path | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """What providers charged: their own cost exports, or a table.

    OpenAI costs, Anthropic cost reports, AWS CUR 2.0, GCP billing exports, or a CSV with provider, day, model and
    amount_usd; which one, the columns tell. What comes in replaces what is stored of the same provider, account and
    day: give all files of one export together. Nothing is imported if anything is wrong.
    """
    usd_per = dict(map(_rate, rates))
    config = settings(config_path)
    book = prices.load_prices(config)
    terms = invoice_files.Terms(usd_per, account, book.providers)
    folder = commands.data_folder(config, data)
    with commands.patience():
        sums, problems = _read(paths, terms)
    if not skip_bad:
        files.demand_none(problems)
    made = sums.statements(invoices.Naming(book))
    try:
        with commands.patience(), work.alone(folder):
            summaries = invoices.store(folder, made)
    except OSError as error:
        raise UserError(f"{error.filename or work.folder(folder)} cannot be written: {error.strerror}") from None
    except duckdb.Error as error:
        raise UserError(f"{work.folder(folder)} cannot be brought up to date: {str(error).splitlines()[0]}") from None
    unknown = sorted({line.item for lines in made.values() for line in lines if line.model and not line.is_known_model})
    left_out = {str(each.path): dict(each.rows) for each in problems if each.rows}
    if as_json:
        commands.print_json(
            {
                "rows": dict(sums.rows),
                "other_services_rows": sums.other_rows,
                "left_out_rows": left_out,
                "providers": [asdict(summary) for summary in summaries],
                "items_of_no_known_model": unknown,
            }
        )
        return
    for summary in summaries:
        click.echo(_told(summary))
    click.echo(", ".join(f"{rows:,} rows of {source}" for source, rows in sums.rows.items()) + " were read.")
    if sums.other_rows:
        click.echo(f"{sums.other_rows:,} of them, of other services, were left out.")
    commands.print_left_out(left_out)
    if unknown:
        click.echo(f"The price book has no model for: {'; '.join(unknown[:10])}{'; …' if len(unknown) > 10 else ''}")


def _read(paths: Sequence[Path], terms: invoice_files.Terms) -> tuple[invoices.Sums, list[Problems]]:
    sums, problems = invoices.Sums(), []
    digests: dict[str, Path] = {}
    for path in paths:
        digest = _digest(path)
        if digest in digests:
            raise click.UsageError(f"{path} is the same as {digests[digest]}: give it once")
        digests[digest] = path
        problems.append(Problems(path))
        for source, _, lines in invoice_files.read(path, terms, problems[-1]):
            sums.add(source, lines)
    return sums, problems


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _rate(text: str) -> tuple[str, Decimal]:
    currency, _, amount = text.partition("=")
    try:
        rate = Decimal(amount)
    except InvalidOperation:
        rate = Decimal(0)
    if len(currency) != 3 or not currency.isalpha() or not rate.is_finite() or not 0 < rate < 10**6:
        raise click.UsageError(f"--usd-per {text}: write the currency and USD for one of it, as EUR=1.08")
    return currency.upper(), rate


def _told(summary: invoices.Summary) -> str:
    line = (
        f"{summary.provider}: {commands.usd(summary.amount_usd)} USD in {summary.lines:,} lines of "
        f"{summary.days:,} statements (days of an account)"
    )
    if summary.replaced_days:
        line += f"; {summary.replaced_days:,} replace others, which had {commands.usd(summary.replaced_usd)} USD"
    if summary.kept_final:
        line += f"; {summary.kept_final:,} estimates were left out, because those bills are closed"
    return line
