"""Builds the views: one relation per .sql file, in the order of their references.

A file is a plain query that runs in any DuckDB shell, but for its places: `'lake:PATH'` stands for PATH in the data
folder. Its first comment line says what the relation is and its grain, `-- @column: text` describes a column; a
column without a line of its own has the meaning, and so the description, of the same column where it comes from.
"""

import glob
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from analytics.again import again

FOLDER = Path(__file__).parent
MODELS = FOLDER / "models"
ON_DEMAND = MODELS / "waste"
"""Worked out by the keeper, and no views: they read the calls too often. What they find is in models/findings/."""
MEASURES = MODELS / "measures"
"""The same: views of them take seconds to plan. Those of these names, in models/scorecard/, read what it wrote."""


@dataclass(frozen=True)
class Model:
    """One relation, as its file describes it."""

    name: str
    description: str
    columns: Mapping[str, str]
    """Descriptions by column, where the file gives one."""
    sql: str


def load(folder: Path = MODELS) -> dict[str, Model]:
    """All models below a folder, by name; without those that the keeper works out, unless it is their folder."""
    return dict(_load(folder))


@cache
def _load(folder: Path) -> dict[str, Model]:
    apart = {ON_DEMAND, MEASURES} - {folder}
    return {path.stem: read_model(path) for path in sorted(folder.rglob("*.sql")) if not apart & {*path.parents}}


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
    names: set[str] = set()

    def note(node: dict[str, Any]) -> dict[str, Any]:
        if node.get("type") == "BASE_TABLE":
            names.add(node["table_name"])
        return node

    row = db.execute("SELECT json_serialize_sql($sql)", {"sql": sql}).fetchone()
    assert row is not None
    tree = json.loads(row[0], object_hook=note)
    if tree["error"]:
        raise ValueError(f"{tree['error_message']} in: {sql[:80]}")
    return names


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


def define_views(db: duckdb.DuckDBPyConnection, data: Path, sql: str) -> None:
    """Create the views that a query reads, to be used at once, without comments."""
    create_views(db, data, needed(db, load(), {"": Model("", "", {}, sql)}))


def views_of_another_moment() -> list[str]:
    """Statements for a connection that asks as of another moment than that of what is written down: they put what that
    comes to, worked out in each query, in its place."""
    return [f"CREATE TEMP VIEW {name} WITH (DEFER_BINDING) AS {model.sql}" for name, model in load(MEASURES).items()]


def digest(data: Path, models: Mapping[str, Model]) -> str:
    """Tells whether views over a data folder are those of these models: all that is made of them is in their files."""
    return sha256("\n".join(located(model.sql, data) for model in models.values()).encode()).hexdigest()


def create_views(
    db: duckdb.DuckDBPyConnection, data: Path, models: Mapping[str, Model], tables: Collection[str] = ()
) -> None:
    """Create views in the current catalog of `db`, to be used at once: what is wrong with one is said when it is read.
    Models named in `tables` are worked out now, once."""
    ordered = in_order(db, models)

    def create() -> None:
        db.begin()
        try:
            for model, _ in ordered:
                db.execute(f"CREATE VIEW {model.name} WITH (DEFER_BINDING) AS {located(model.sql, data)}")
            work_out(db, [model.name for model, _ in ordered if model.name in tables])
        except BaseException:
            db.rollback()
            raise
        db.commit()

    again(create)


def work_out(db: duckdb.DuckDBPyConnection, views: Iterable[str]) -> None:
    """Make views tables; one that reads another comes after it."""
    for name in views:
        db.execute(f"CREATE TABLE made_{name} AS FROM {name}")
        db.execute(f"DROP VIEW {name}")
        db.execute(f"ALTER TABLE made_{name} RENAME TO {name}")


def create_sound_views(
    db: duckdb.DuckDBPyConnection, data: Path, models: Mapping[str, Model]
) -> list[tuple[Model, list[str]]]:
    """Create views in the current catalog of `db`, and see that each of them can be read. Returns the models, as
    `in_order` gives them.

    For that, DuckDB goes through all that a view reads, down to the files: among many views, again and again. So each
    is created, once and under another name, over empty tables in place of those that it reads.
    """
    ordered = in_order(db, models)
    db.execute("BEGIN")
    for model, _ in ordered:
        db.execute(f"CREATE VIEW made_{model.name} AS {located(model.sql, data)}")
        columns = ", ".join(f'"{row[0]}" {row[1]}' for row in db.execute(f"DESCRIBE made_{model.name}").fetchall())
        db.execute(f"CREATE TABLE {model.name} ({columns})")
    for model, _ in reversed(ordered):
        db.execute(f"DROP TABLE {model.name}")
        db.execute(f"ALTER VIEW made_{model.name} RENAME TO {model.name}")
    db.execute("COMMIT")
    return ordered


def describe_views(db: duckdb.DuckDBPyConnection, ordered: Iterable[tuple[Model, list[str]]]) -> None:
    """Comment on the views that were created, and on their columns."""
    columns = dict(db.execute(step("view_columns")).fetchall())
    described: dict[str, dict[str, str]] = {}
    db.execute("BEGIN")  # a commit for each of the comments would take most of the time
    for model, reads in ordered:
        db.execute(f"COMMENT ON VIEW {model.name} IS {literal(model.description)}")
        texts = {column: text for name in reads for column, text in described[name].items()} | dict(model.columns)
        described[model.name] = {column: texts[column] for column in columns[model.name] if texts.get(column)}
        for column, text in described[model.name].items():
            db.execute(f'COMMENT ON COLUMN {model.name}."{column}" IS {literal(text)}')
    db.execute("COMMIT")
