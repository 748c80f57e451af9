"""Builds the views: one relation per .sql file, in the order of their references.

A file is a plain query that runs in any DuckDB shell, but for its places: `'lake:PATH'` stands for PATH in the data
folder. Its first comment line says what the relation is and its grain, `-- @column: text` describes a column; a
column without a line of its own has the meaning, and so the description, of the same column where it comes from.
"""

import glob
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import duckdb

FOLDER = Path(__file__).parent
MODELS = FOLDER / "models"
ON_DEMAND = MODELS / "waste"
"""Worked out by the keeper, and no views: they read the calls too often. What they find is in models/findings/."""


@dataclass(frozen=True)
class Model:
    """One relation, as its file describes it."""

    name: str
    description: str
    columns: Mapping[str, str]
    """Descriptions by column, where the file gives one."""
    sql: str


def load(folder: Path = MODELS) -> dict[str, Model]:
    """All models below a folder, by name; without those on demand, unless it is their folder."""
    paths = [path for path in sorted(folder.rglob("*.sql")) if folder == ON_DEMAND or ON_DEMAND not in path.parents]
    return {path.stem: read_model(path) for path in paths}


def read_model(path: Path) -> Model:
    sql = path.read_text(encoding="utf-8").rstrip().removesuffix(";")
    first, _, _ = sql.partition("\n")
    columns = dict(re.findall(r"^-- @(\w+): (.+)$", sql, re.MULTILINE))
    return Model(path.stem, first.removeprefix("--").strip(), columns, sql)


def step(name: str) -> str:
    """The SQL of one step of a program."""
    return (FOLDER / "steps" / f"{name}.sql").read_text(encoding="utf-8")


_READ: dict[str, set[str]] = {}
"""What queries read: to parse one takes longer than to create its view."""


def references(db: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """Names of the relations that a query reads, as DuckDB's own parser sees them, its own CTEs included."""
    if sql not in _READ:
        _READ[sql] = _references(db, sql)
    return _READ[sql]


def _references(db: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    row = db.execute("SELECT json_serialize_sql($sql)", {"sql": sql}).fetchone()
    assert row is not None
    tree = json.loads(row[0])
    if tree["error"]:
        raise ValueError(f"{tree['error_message']} in: {sql[:80]}")
    return {node["table_name"] for node in _nodes(tree) if node.get("type") == "BASE_TABLE"}


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(child)


def in_order(db: duckdb.DuckDBPyConnection, models: Mapping[str, Model]) -> list[tuple[Model, list[str]]]:
    """Models with the names of the models they read, each after those. Raises `graphlib.CycleError`."""
    reads = {name: sorted(references(db, model.sql) & models.keys()) for name, model in models.items()}
    return [(models[name], reads[name]) for name in TopologicalSorter(reads).static_order()]


def needed(db: duckdb.DuckDBPyConnection, models: Mapping[str, Model], wanted: Mapping[str, Model]) -> dict[str, Model]:
    """Those of `models` that the wanted ones read, directly or not."""
    found: dict[str, Model] = {}
    waiting = list(wanted.values())
    while waiting:
        names = references(db, waiting.pop().sql) & models.keys() - found.keys()
        found |= {name: models[name] for name in names}
        waiting += [models[name] for name in names]
    return found


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def glob_of(path: Path) -> str:
    """The pattern that finds this path and no other, whatever is in its name."""
    return glob.escape(str(path))


def located(sql: str, data: Path) -> str:
    """A model's SQL with the places of one data folder, absolute, so that it works from any directory."""
    base = glob_of(data.resolve()).replace("'", "''")
    return sql.replace("'lake:", f"'{base}/")


def define_views(db: duckdb.DuckDBPyConnection, data: Path, models: Mapping[str, Model]) -> None:
    """Create views to be used at once, without comments."""
    for model, _ in in_order(db, models):
        db.execute(f"CREATE TEMP VIEW {model.name} AS {located(model.sql, data)}")


def create_views(
    db: duckdb.DuckDBPyConnection,
    data: Path,
    models: Mapping[str, Model] | None = None,
    tables: Collection[str] = (),
) -> str:
    """Create all views, with comments, in the current catalog of `db`. Returns the statements. Models named in `tables`
    are worked out now, once."""
    described: dict[str, dict[str, str]] = {}
    done: list[str] = []

    def run(statement: str) -> None:
        db.execute(statement)
        done.append(statement)

    db.execute("BEGIN")  # a commit for each of the comments would take most of the time
    ordered = in_order(db, load() if models is None else models)
    kinds = {model.name: "TABLE" if model.name in tables else "VIEW" for model, _ in ordered}
    for model, _ in ordered:
        run(f"CREATE OR REPLACE {kinds[model.name]} {model.name} AS {located(model.sql, data)}")
    columns = dict(db.execute(step("view_columns")).fetchall())  # of all at once: to describe one binds it once more
    for model, reads in ordered:
        run(f"COMMENT ON {kinds[model.name]} {model.name} IS {literal(model.description)}")
        inherited = {column: text for name in reads for column, text in described[name].items()}
        texts = {column: model.columns.get(column, inherited.get(column)) for column in columns[model.name]}
        described[model.name] = {column: text for column, text in texts.items() if text}
        for column, text in described[model.name].items():
            run(f'COMMENT ON COLUMN {model.name}."{column}" IS {literal(text)}')
    db.execute("COMMIT")
    return ";\n".join(done)
