"""`outlay import calls`: calls that were made elsewhere, into the ledger."""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import duckdb

import analytics
from analytics import build, commands, disk, lake
from analytics.sources import call_files, files
from analytics.sources.files import Problems
from gateway import ledger
from gateway.errors import UserError
from gateway.options import config_option, data_option, json_option, settings

SEALED_FROM = 20_000
"""So many calls are sealed at once where nobody keeps the folder: until they are, each query reads the journal."""

Place = tuple[int, int, int]
"""Of a call's record in the file that was put aside: when it was recorded (microseconds), first byte, end."""


@click.command(name="calls")
@click.argument("paths", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--skip-bad", is_flag=True, help="Leave out rows that are wrong, and columns that calls have not.")
@config_option
@data_option
@json_option
def import_calls(
    paths: Sequence[Path], skip_bad: bool, config_path: Path | None, data: Path | None, as_json: bool
) -> None:
    """Calls that another gateway made, from CSV, JSONL or Parquet.

    Columns are those of calls; call_id and started_at must be there. A call whose call_id is in the ledger is left as
    it is. One without list_cost_usd is unpriced, not free. Nothing is imported if anything is wrong. Budgets count
    what is imported as they count calls of another gateway on the same folder.
    """
    config = settings(config_path)
    folder = commands.data_folder(config, data)
    problems = [Problems(path) for path in paths]
    incoming = folder / "calls.incoming"
    try:
        with (
            commands.tidy_when_terminated(),
            disk.alone(folder, "import.lock", wait=True),
            disk.passing(incoming),
            commands.patience(),
        ):
            places = _put_aside(incoming, problems)
            if not skip_bad:
                files.demand_none(problems)
            known = _known(folder, incoming)
            new = sorted(place for call_id, place in places.items() if call_id not in known)
            if new:
                ledger.write_calls(commands.journal_settings(config, folder), _lines(incoming, new), new[0][0])
            if len(new) >= SEALED_FROM:
                lake.settle(folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    except duckdb.Error as error:
        raise UserError(f"{folder} cannot be read: {str(error).splitlines()[0]}") from None
    left_out = {str(each.path): dict(each.rows) for each in problems if each.rows}
    if as_json:
        commands.print_json({"imported": len(new), "known": len(known), "left_out_rows": left_out})
        return
    click.echo(f"{len(new):,} calls were imported, {len(known):,} were there already.")
    commands.print_left_out(left_out)


def _put_aside(incoming: Path, problems: Sequence[Problems]) -> dict[str, Place]:
    """Write the records of all sound rows to a file. Returns the place of each by its call_id."""
    places: dict[str, Place] = {}
    with incoming.open("wb") as lines:
        for each in problems:
            for call, recorded_us in call_files.read(each.path, each, places.keys()):
                begin, line = lines.tell(), ledger.encode_close(call, recorded_us)
                lines.write(line)
                places[call.call_id] = (recorded_us, begin, begin + len(line))
    return places


def _known(folder: Path, incoming: Path) -> set[str]:
    """Of the calls that were put aside, those that the ledger has."""
    with analytics.open(folder) as db:
        found = db.execute(build.step("known_calls"), {"incoming": build.glob_of(incoming)}).fetchall()
    return {call_id for (call_id,) in found}


def _lines(incoming: Path, places: Sequence[Place]) -> Iterator[bytes]:
    """Records in the order of time, so that few of the ledger's files have several days."""
    with incoming.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as records:
        for _, begin, end in places:
            yield records[begin:end]
