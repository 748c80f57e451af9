"""Pages of the documentation that are made from the code: commands, settings, endpoints, relations.

MkDocs calls `on_config` and `on_files` while it builds the site (`make docs`); nothing is written into the repository.
"""

import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
import msgspec

import analytics
from analytics import lake
from gateway.admin_api import KeysApi, PricesApi
from gateway.api import Api
from gateway.budgets_api import BudgetsApi
from gateway.cli import outlay
from gateway.config import Config
from gateway.endpoints import Endpoint
from gateway.findings import FindingsApi
from gateway.http_api import HttpApi
from gateway.openapi import ROLE_NAMES, plain_path

APIS: tuple[Any, ...] = (Api, KeysApi, PricesApi, BudgetsApi, FindingsApi)


def pages() -> dict[str, str]:
    """By place below docs/."""
    return {
        "reference/commands.md": _page("Commands", "What `--help` says.", _commands(outlay, "outlay")),
        "reference/settings.md": _page(
            "Settings", "`config/outlay.toml`; the shipped one has each setting with its default.", _settings(Config)
        ),
        "reference/endpoints.md": _page(
            "Endpoints",
            "What `GET /-/api/v1/openapi.json` describes with all details; [how to use them](../api.md).",
            _endpoints(),
        ),
        "reference/relations.md": _page(
            "Relations", "The views in `outlay.duckdb`, as their comments describe them; [how to ask](../data.md#ask).",
            _relations(),
        ),
    }  # fmt: skip


def on_config(config: Any) -> Any:
    """MkDocs' hook: decisions stand in the order of their days, by their titles."""
    folder = Path(config.docs_dir)
    config.nav.append({"Decisions": [str(path.relative_to(folder)) for path in sorted(folder.glob("decisions/*.md"))]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """MkDocs' hook: pages that no file is written for."""
    from mkdocs.structure.files import File

    for place, text in pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def _page(title: str, about: str, parts: Iterator[str]) -> str:
    return "\n\n".join([f"# {title}", about, *parts]) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join([_row(*head), "|" + "---|" * len(head), *(_row(*row) for row in rows)])


# -- commands ----------------------------------------------------------------------------------------------------------


def _commands(command: click.Command, name: str) -> Iterator[str]:
    with click.Context(command, info_name=name) as context:
        if isinstance(command, click.Group):
            for each in command.list_commands(context):
                inner = command.get_command(context, each)
                assert inner is not None
                yield from _commands(inner, f"{name} {each}")
            return
        yield f"## {name}"
        yield re.sub(r"\n +", "\n", (command.help or "").strip())
        arguments = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
        yield f"```\n{' '.join([name, '[OPTIONS]', *arguments])}\n```"
        records = [each.get_help_record(context) for each in command.get_params(context)]
        yield _table(("option", ""), [(f"`{record[0]}`", record[1]) for record in records if record])


# -- settings ----------------------------------------------------------------------------------------------------------


def _settings(struct: Any, at: str = "", help_: str = "") -> Iterator[str]:
    hints = get_type_hints(struct, include_extras=True)
    defaults = {field.name: field for field in msgspec.structs.fields(struct)}
    rows, inner = [], []
    for name, hint in hints.items():
        if struct is Config and name == "file":
            continue
        kind, about = _parts(hint)
        below = get_args(kind)[1] if get_origin(kind) is dict else kind
        if isinstance(below, type) and issubclass(below, msgspec.Struct):
            inner.append((below, f"{at}{name}.NAME" if below is not kind else f"{at}{name}", about))
        else:
            rows.append((f"`{name}`", _type(kind), _default(defaults[name]), about))
    if rows:
        yield f"## [{at.removesuffix('.')}]"
        yield " ".join((help_ or struct.__doc__ or "").split())
        yield _table(("setting", "type", "default", ""), rows)
    for below, place, about in inner:
        yield from _settings(below, f"{place}.", about)


def _parts(hint: Any) -> tuple[Any, str]:
    """A type, without what makes it optional, and its help."""
    about = ""
    while True:
        if get_origin(hint) is Annotated:
            about = about or next(
                (meta.description for meta in hint.__metadata__ if getattr(meta, "description", 0)), ""
            )
            hint = hint.__origin__
        elif get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint):
            rest = [each for each in get_args(hint) if each is not type(None)]
            if len(rest) > 1:
                return hint, about
            hint = rest[0]
        else:
            return hint, about


def _type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is Annotated:
        return _type(_parts(kind)[0])
    if get_origin(kind) in (tuple, dict, Union, types.UnionType):
        names = {tuple: "list of ", dict: "table of "}
        inner = [each for each in get_args(kind) if each not in (Ellipsis, type(None))]
        if get_origin(kind) is dict:
            inner = inner[1:]
        return names.get(get_origin(kind), "") + " or ".join(_type(each) for each in inner)
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true, false", "Decimal": "amount"}.get(
        kind.__name__, kind.__name__
    )


def _default(field: Any) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else msgspec.NODEFAULT
    if value is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return "needed"
    return "" if value is None else f"`{msgspec.json.encode(value, enc_hook=str).decode()}`"


# -- endpoints ---------------------------------------------------------------------------------------------------------


def endpoints() -> list[Endpoint]:
    """Every one that there is; they declare themselves without anything to serve."""
    found = [each for part in APIS for each in part.endpoints(object.__new__(part))]
    return list(HttpApi(found, _nobody).endpoints)


def _nobody(request: object) -> Any:
    raise NotImplementedError("nobody asks")


def _endpoints() -> Iterator[str]:
    rows = [(f"`{each.method} {plain_path(each.path)}`", ROLE_NAMES[each.access], each.summary) for each in endpoints()]
    yield _table(("endpoint", "who", ""), rows)


# -- relations ---------------------------------------------------------------------------------------------------------

COLUMNS = """
SELECT views.view_name, views.comment, columns.column_name, columns.data_type, columns.comment
FROM duckdb_views() AS views JOIN duckdb_columns() AS columns ON columns.table_name = views.view_name
WHERE NOT views.internal AND columns.database_name = current_database()
ORDER BY views.view_name, columns.column_index
"""


def _relations() -> Iterator[str]:
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        lake.publish(data)
        with analytics.open(data) as db:
            found = db.execute(COLUMNS).fetchall()
    described: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for view, about, column, kind, comment in found:
        described.setdefault((view, about), []).append((f"`{column}`", kind, comment or ""))
    yield from _of_relations(described)


def _of_relations(described: Mapping[tuple[str, str], list[tuple[str, ...]]]) -> Iterator[str]:
    for (view, about), columns in described.items():
        yield f"## {view}"
        yield about
        yield _table(("column", "type", ""), columns)
