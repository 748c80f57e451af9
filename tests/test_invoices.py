"""Invoices: the exports of providers as they are, exact sums in any order, and each dollar explained once."""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics import build, invoices, work
from analytics.invoice_cli import import_invoice
from analytics.sources import invoice_files
from analytics.sources.files import Problems
from gateway import cli
from gateway.errors import UserError
from gateway.prices import DEFAULT_BOOK, PriceBook
from tests.journals import call, segment

Run = Callable[..., tuple[int, str, str]]
DAY, NEXT = date(2026, 11, 20), date(2026, 11, 21)
PROVIDERS = {"openai", "anthropic", "aws.bedrock", "gcp.gemini", "gcp.vertex_ai", "mistral"}


@pytest.fixture(scope="module")
def naming() -> invoices.Naming:
    return invoices.Naming(PriceBook.load(DEFAULT_BOOK))


@pytest.fixture
def run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`outlay`, in a directory with a data folder and nothing else."""
    monkeypatch.chdir(tmp_path)

    def runs(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main(list(arguments))
        out, errors = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, out, errors

    return runs


def stored(data: Path) -> list[dict[str, Any]]:
    file = work.table_file(data, invoices.TABLE)
    if not file.exists():
        return []
    with duckdb.connect() as db:
        result = db.read_parquet(str(file)).order("ALL")
        return [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A data folder without views."""
    data = tmp_path / "data"
    data.mkdir()
    work.prepare(data)
    return data


@pytest.fixture
def bring(bare: Path, naming: invoices.Naming) -> Callable[..., tuple[invoices.Sums, list[invoices.Summary]]]:
    """Files into the data folder, as `outlay import invoice` brings them."""

    def brings(*paths: Path, **terms: Any) -> tuple[invoices.Sums, list[invoices.Summary]]:
        sums = invoices.Sums()
        for path in paths:
            problems = Problems(path)
            for source, _, lines in invoice_files.read(
                path, invoice_files.Terms(providers=PROVIDERS, **terms), problems
            ):
                sums.add(source, lines)
            assert len(problems) == 0
        with work.alone(bare):
            return sums, invoices.store(bare, sums.statements(naming))

    return brings


def read(path: Path, **terms: Any) -> tuple[list[invoice_files.Line], Problems]:
    problems = Problems(path)
    found = invoice_files.read(path, invoice_files.Terms(providers=PROVIDERS, **terms), problems)
    return [line for _, _, lines in found for line in lines], problems


def usd(line: invoice_files.Line) -> Decimal:
    return Decimal(line.atto_usd).scaleb(-18)


def told(lines: Iterable[invoice_files.Line]) -> list[tuple[str, str, str, str, str, str | None]]:
    return [
        (x.provider, f"{x.account} {x.day:%m-%d}", x.item, x.charge, f"{usd(x).normalize():f}", x.model)
        for x in lines
        if x.charge != "none"
    ]


# -- exports as they are -----------------------------------------------------------------------------------------------


def openai_page(*buckets: tuple[date, list[dict[str, Any]]]) -> dict[str, Any]:
    data = []
    for day, results in buckets:
        start = int(datetime.combine(day, datetime.min.time(), UTC).timestamp())
        made = [{"object": "organization.costs.result", "project_id": None, **result} for result in results]
        data.append({"object": "bucket", "start_time": start, "end_time": start + 86400, "results": made})
    return {"object": "page", "data": data, "has_more": False, "next_page": None}


def cost(value: Any, item: str | None, **fields: Any) -> dict[str, Any]:
    return {"amount": {"value": value, "currency": "usd"}, "line_item": item, **fields}


def anthropic_page(*buckets: tuple[date, list[dict[str, Any]]]) -> dict[str, Any]:
    data = [
        {
            "starting_at": f"{day}T00:00:00Z",
            "ending_at": f"{day + timedelta(days=1)}T00:00:00Z",
            "results": [{"currency": "USD", "workspace_id": None, **result} for result in results],
        }
        for day, results in buckets
    ]
    return {"data": data, "has_more": False, "next_page": None}


def cur(number: int, cost: str, usage_type: str, **fields: Any) -> dict[str, Any]:
    return {
        "identity_line_item_id": f"line{number}",
        "identity_time_interval": "2026-11-20T23:00:00Z/2026-11-21T00:00:00Z",
        "bill_payer_account_id": "111111111111",
        "line_item_usage_account_id": "222222222222",
        "line_item_line_item_type": "Usage",
        "line_item_product_code": "AmazonBedrock",
        "line_item_usage_start_date": "2026-11-20T23:00:00Z",
        "line_item_usage_type": usage_type,
        "line_item_unblended_cost": cost,
        "line_item_currency_code": "USD",
        "line_item_line_item_description": "…",
        "product": "{}",
        "product_servicecode": "AmazonBedrock",
        **fields,
    }


CLAUDE = {
    "line_item_product_code": "4mkqx8ts0b1v2c3d4e5f6g7h8",
    "product_servicecode": "4mkqx8ts0b1v2c3d4e5f6g7h8",
    "product": '{"product_name": "Claude Sonnet 4.5 (Amazon Bedrock Edition)"}',
}
CUR_ROWS = [
    cur(1, "1.0000000001", "USE1-Claude4.6Opus-input-tokens-cross-region-global"),
    cur(2, "0.3", "USE1-MP:USE1_InputTokenCount-Units", **CLAUDE),
    cur(3, "-0.05", "USE1-Claude4.6Opus-input-tokens-cross-region-global", line_item_line_item_type="EdpDiscount"),
    cur(4, "0.20", "", line_item_line_item_type="Tax", line_item_line_item_description="VAT"),
    cur(5, "12.5", "USE1-Qwen3-32B-ProvisionedThroughput-NoCommit"),
    cur(6, "99", "USE1-BoxUsage:m7g.large", line_item_product_code="AmazonEC2", product_servicecode="AmazonEC2"),
    cur(7, "-3", "", line_item_line_item_type="Credit", line_item_line_item_description="Promotion"),
]
CUR_TOLD = [
    ("Claude4.6Opus-input-tokens-cross-region-global", "usage", "1.0000000001"),
    ("Claude Sonnet 4.5 MP:USE1_InputTokenCount-Units", "usage", "0.3"),
    ("Claude4.6Opus-input-tokens-cross-region-global", "discount", "-0.05"),
    ("VAT", "tax", "0.2"),
    ("Qwen3-32B-ProvisionedThroughput-NoCommit", "fee", "12.5"),
    ("Promotion", "credit", "-3"),
]


def gcp(cost: float, service: str, sku: str, **fields: Any) -> dict[str, Any]:
    return {
        "billing_account_id": "AAAAAA-BBBBBB-CCCCCC",
        "service": {"id": "C7E2-9256-1C43", "description": service},
        "sku": {"id": "1FD9-C71B-4D32", "description": sku},
        "usage_start_time": "2026-11-20 10:00:00 UTC",
        "usage_end_time": "2026-11-20 11:00:00 UTC",
        "cost": cost,
        "currency": "USD",
        "currency_conversion_rate": 1.0,
        "credits": [],
        "cost_type": "regular",
        **fields,
    }


GCP_ROWS = [
    gcp(
        0.42,
        "Gemini API",
        "Generate content input token count Gemini 2.5 Pro long input text",
        credits=[
            {"name": "Trial", "amount": -0.4, "type": "PROMOTION"},
            {"name": "Contract", "amount": -0.01, "type": "DISCOUNT"},
        ],
    ),
    gcp(1e-7, "Vertex AI", "Claude Sonnet 4.5 - Input Tokens", usage_start_time="2026-11-20T17:00:00-08:00"),
    gcp(7.0, "Compute Engine", "N2 Instance Core"),
    gcp(
        9.2, "Vertex AI", "Gemini 2.5 Flash GA Text Input - Predictions", currency="EUR", currency_conversion_rate=0.92
    ),
    gcp(3.0, "Invoice", "Tax", cost_type="tax"),
]
GCP_TOLD = [
    ("gcp.gemini", "11-20", GCP_ROWS[0]["sku"]["description"], "usage", "0.42"),
    ("gcp.gemini", "11-20", GCP_ROWS[0]["sku"]["description"], "credit", "-0.4"),
    ("gcp.gemini", "11-20", GCP_ROWS[0]["sku"]["description"], "discount", "-0.01"),
    ("gcp.vertex_ai", "11-21", "Claude Sonnet 4.5 - Input Tokens", "usage", "0.0000001"),
    ("gcp.vertex_ai", "11-20", "Gemini 2.5 Flash GA Text Input - Predictions", "usage", "10"),
]


def write(path: Path, rows: list[dict[str, Any]], types: Mapping[str, str] = {}) -> Path:
    """As the format that the name says; in CSV, records are JSON."""
    if ".csv" in path.name:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in r.items()} for r in rows)
        raw = text.getvalue().encode()
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
        return path
    lines = path.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if path.suffix == ".parquet":
        with duckdb.connect() as db:
            columns = ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in types.items())
            table = db.read_json(str(lines))
            (table.select(f"* REPLACE ({columns})") if columns else table).write_parquet(str(path))
    return path


def test_openai_costs_of_the_api(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    first = openai_page(
        (DAY, [cost(0.06, "gpt-5.4-2026-03-05, input"), cost("0.0004455000000000", "gpt-5.4-2026-03-05, output")])
    )
    second = openai_page((NEXT, []), (NEXT + timedelta(days=1), [cost("0E-6176", "x"), cost(-2, "gpt-4o, input")]))
    for text in (json.dumps([first, second]), json.dumps(first) + "\n" + json.dumps(second)):
        path.write_text(text)
        lines, problems = read(path)
        assert len(problems) == 0
        assert told(lines) == [
            ("openai", "default 11-20", "gpt-5.4-2026-03-05, input", "usage", "0.06", "gpt-5.4-2026-03-05, input"),
            (
                "openai",
                "default 11-20",
                "gpt-5.4-2026-03-05, output",
                "usage",
                "0.0004455",
                "gpt-5.4-2026-03-05, output",
            ),
            ("openai", "default 11-22", "x", "usage", "0", "x"),
            ("openai", "default 11-22", "gpt-4o, input", "credit", "-2", "gpt-4o, input"),
        ]
        assert [(x.day, x.item) for x in lines if x.charge == "none"] == [(NEXT, invoice_files.NOTHING)]


def test_openai_costs_of_the_console(tmp_path: Path) -> None:
    header = (
        "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id,"
        "organization_id,organization_name"
    )
    (tmp_path / "costs.csv").write_text(
        f"{header}\n1763596800,1763683200,2025-11-20T00:00:00+00:00,2025-11-21T00:00:00+00:00,0.89587400000000000,usd,"
        '"gpt-4o, input",,org-1,Personal\n1763683200,1763769600,2025-11-21T00:00:00+00:00,,,,,,org-1,\n'
    )
    lines, problems = read(tmp_path / "costs.csv")
    assert len(problems) == 0
    assert told(lines) == [("openai", "org-1 11-20", "gpt-4o, input", "usage", "0.895874", "gpt-4o, input")]
    assert [x.day for x in lines] == [date(2025, 11, 20), date(2025, 11, 21)]


def test_anthropic_cost_report_is_in_cents(tmp_path: Path) -> None:
    tokens = {"cost_type": "tokens", "model": "claude-sonnet-4-5-20250929", "service_tier": "standard"}
    results = [
        {"amount": "123.78912", "description": "Claude Sonnet 4.5 Usage - Input Tokens", **tokens},
        {"amount": "0.00001", "description": "Claude Sonnet 4.5 Usage - Output Tokens", **tokens},
        {"amount": "500", "description": "Web Search Usage", "cost_type": "web_search", "model": None},
    ]
    (tmp_path / "report.json").write_text(json.dumps(anthropic_page((DAY, results))))
    lines, problems = read(tmp_path / "report.json", account="acme")
    assert len(problems) == 0
    model = "claude-sonnet-4-5-20250929"
    assert told(lines) == [
        ("anthropic", "acme 11-20", "Claude Sonnet 4.5 Usage - Input Tokens", "usage", "1.2378912", model),
        ("anthropic", "acme 11-20", "Claude Sonnet 4.5 Usage - Output Tokens", "usage", "0.0000001", model),
        ("anthropic", "acme 11-20", "Web Search Usage", "usage", "5", None),
    ]


@pytest.mark.parametrize("name", ["cur.csv", "cur.csv.gz", "cur.parquet"])
def test_aws_cur(tmp_path: Path, name: str) -> None:
    types = {"line_item_unblended_cost": "DOUBLE", "line_item_usage_start_date": "TIMESTAMP"}
    lines, problems = read(write(tmp_path / name, CUR_ROWS, types))
    assert len(problems) == 0
    assert [(item, charge, amount) for *_, item, charge, amount, _ in told(lines)] == CUR_TOLD
    assert {(x.provider, x.account, x.day, x.is_final) for x in lines if x.charge != "none"} == {
        ("aws.bedrock", "222222222222", DAY, False)
    }
    assert [x.item for x in lines if x.charge == "none"] == [invoice_files.OTHERS]


def test_an_aws_bill_is_closed_when_it_has_an_invoice(tmp_path: Path, naming: invoices.Naming) -> None:
    rows = [row | {"bill_invoice_id": "4711"} for row in CUR_ROWS]
    for closed in (rows, [*rows[1:], CUR_ROWS[0]]):
        sums = invoices.Sums()
        for source, _, lines in invoice_files.read(
            write(tmp_path / "cur.csv", closed), invoice_files.Terms(), Problems(tmp_path)
        ):
            sums.add(source, lines)
        [made] = sums.statements(naming).values()
        assert all(line.is_final for line in made) == (closed is rows)


@pytest.mark.parametrize("name", ["gcp.jsonl", "gcp.parquet", "gcp.csv"])
def test_gcp_billing(tmp_path: Path, name: str) -> None:
    rows = GCP_ROWS
    if name == "gcp.csv":  # a query's result, with the records' fields as columns
        rows = [
            {k: v for k, v in row.items() if k not in ("service", "sku")}
            | {"service_description": row["service"]["description"], "sku_description": row["sku"]["description"]}
            for row in rows
        ]
    lines, problems = read(write(tmp_path / name, rows, {"usage_start_time": "VARCHAR"}))
    assert len(problems) == 0
    assert [
        (provider, place.split()[1], item, charge, amount) for provider, place, item, charge, amount, _ in told(lines)
    ] == GCP_TOLD
    assert {x.account for x in lines} == {"AAAAAA-BBBBBB-CCCCCC"}


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(
        "provider,day,model,amount_usd,charge\nmistral,2026-11-20,codestral,1.5,\nmistral,2026-11-20,,-1,\n"
        "mistral,2026-11-20,,0.19,tax\n"
    )
    lines, problems = read(tmp_path / "mine.csv")
    assert len(problems) == 0
    assert told(lines) == [
        ("mistral", "default 11-20", "codestral", "usage", "1.5", "codestral"),
        ("mistral", "default 11-20", "(no item)", "credit", "-1", None),
        ("mistral", "default 11-20", "(no item)", "tax", "0.19", None),
    ]


MODELS = [
    ("openai", "gpt-5.4-2026-03-05, input", "gpt-5.4"),
    ("openai", "gpt-4o-2024-08-06, cached input", "gpt-4o"),
    ("openai", "gpt-4o-audio-preview, audio output", "gpt-4o-audio-preview"),
    ("openai", "text-embedding-3-small, input", "text-embedding-3-small"),
    ("anthropic", "Claude Sonnet 4.5 - Input Tokens", "claude-sonnet-4-5"),
    ("anthropic", "Claude Sonnet 4 Usage - Input Tokens", "claude-sonnet-4-0"),
    ("aws.bedrock", "Claude4.6Opus-cache-read-input-token-count-cross-region-global", "claude-opus-4-6"),
    ("aws.bedrock", "Claude Sonnet 4.5", "claude-sonnet-4-5"),
    ("aws.bedrock", "NovaPro-input-tokens", "amazon.nova-pro-v1:0"),
    ("gcp.gemini", "Generate content input token count Gemini 2.5 Pro long input text", "gemini-2.5-pro"),
    ("gcp.gemini", "EmbedContent input token count for gemini-embedding-2 text", "gemini-embedding-2"),
    ("gcp.vertex_ai", "Gemini 2.5 Flash GA Text Input - Predictions", "gemini-2.5-flash"),
    ("gcp.vertex_ai", "Gemini 2.5 Flash Image Input - Predictions", "gemini-2.5-flash"),
    ("gcp.vertex_ai", "Gemini 2.5 Flash Image Image Output - Predictions", "gemini-2.5-flash-image"),
    ("gcp.vertex_ai", "Claude Sonnet 4.5 - Input Tokens", "claude-sonnet-4-5"),
]


@pytest.mark.parametrize(("provider", "item", "model"), MODELS)
def test_models_of_items(naming: invoices.Naming, provider: str, item: str, model: str) -> None:
    assert naming(invoice_files.Line(provider, "a", DAY, item, "usage", 0, item)) == (model, True)


@pytest.mark.parametrize(
    ("provider", "item"),
    [
        ("openai", "web search tool calls"),
        ("openai", "gpt-99-giga, input"),
        ("aws.bedrock", "Guardrail-ContentPolicyUnitsConsumed"),
        ("gcp.vertex_ai", "Vertex AI: Training/Pipelines on N1"),
    ],
)
def test_items_of_no_known_model(naming: invoices.Naming, provider: str, item: str) -> None:
    model, is_known = naming(invoice_files.Line(provider, "a", DAY, item, "usage", 0, item))
    assert (bool(model), is_known) == (True, False)


# -- what is none, or half broken --------------------------------------------------------------------------------------

USAGE = {"object": "page", "data": [{"start_time": 1763596800, "results": [{"input_tokens": 3}]}]}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.csv", "a,b\n1,2\n", "is no export that is known here. Known by their columns"),
        ("x.txt", "a", "is no export that is known here"),
        ("x.json", "{}", "is no export that is known here"),
        ("x.json", '{"data": [{"results": ', "is no JSON, or not a whole one: export it again"),
        ("x.json", json.dumps(USAGE), "says no amounts, as exports of usage do"),
        ("x.csv", "provider,day,amount_usd,day\n", 'the column "day" is there twice'),
        ("x.csv.gz", "no gzip", "cannot be read"),
        ("x.parquet", "no Parquet", "cannot be read as Parquet"),
    ],
)
def test_files_of_no_use(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        read(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}")
    assert says in str(error.value)


def test_a_cut_off_gzip_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "cur.csv.gz", CUR_ROWS * 100)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read"):
        read(path)


BAD = [
    ("openai,2026-11-20,gpt-4o,twelve", 'amount_usd: "twelve" is no amount: write 12.34'),
    ("openai,2026-11-20,gpt-4o,NaN", 'amount_usd: "NaN" is no amount'),
    ("openai,2026-11-20,gpt-4o,1e9", 'amount_usd: "1e9" is no amount below 1,000,000,000'),
    ("openai,20.11.2026,gpt-4o,1", 'day: "20.11.2026" is no day: write 2026-11-25'),
    ("opnai,2026-11-20,gpt-4o,1", 'provider: "opnai" is none of '),
    ("openai,2026-11-20,gpt-4o", "has 3 cells, the header has 4"),
    (",2026-11-20,gpt-4o,1", "provider is missing"),
]


def test_bad_rows_are_named_and_nothing_is_imported(run: Run, data: Path, tmp_path: Path) -> None:
    rows = [row for row, _ in BAD]
    (tmp_path / "x.csv").write_text("\n".join(["provider,day,model,amount_usd", *rows, "openai,2026-11-20,gpt-4o,2"]))
    code, _, errors = run("import", "invoice", "x.csv")
    assert code == 1
    for number, (line, (_, says)) in enumerate(zip(errors.splitlines(), BAD, strict=False), 2):
        assert line.removeprefix("Error: ").startswith(f"x.csv row {number}: {says}")
    assert errors.splitlines()[-1] == "Nothing was imported; --skip-bad leaves out what is wrong."
    assert stored(data) == []
    code, out, _ = run("import", "invoice", "x.csv", "--skip-bad")
    assert code == 0
    assert "x.csv: left out: 5 rows (wrong value), 1 rows (unreadable), 1 rows (missing key)" in out
    assert [row["amount_usd"] for row in stored(data)] == [Decimal(2)]


def test_odd_buckets_duplicates_and_kinds_of_charge(tmp_path: Path) -> None:
    page = openai_page((DAY, [cost(1, "gpt-4o"), cost(2, "gpt-4o"), cost(3, "gpt-4o", project_id="p")]))
    week = openai_page((DAY, [cost(1, "o3")]))
    week["data"][0]["end_time"] += 6 * 86400
    shifted = openai_page((DAY, [cost(1, "o3")]))
    shifted["data"][0]["start_time"] += 3600
    (tmp_path / "x.json").write_text(json.dumps([page, week, shifted]))
    lines, problems = read(tmp_path / "x.json")
    assert [usd(line) for line in lines] == [1, 3]
    assert problems.lines == [
        f"{tmp_path}/x.json row 2: says the same as row 1",
        f"{tmp_path}/x.json row 4: 2026-11-20T00:00Z to 2026-11-27T00:00Z is no UTC day: export by day",
        f"{tmp_path}/x.json row 5: 2026-11-20T01:00Z to 2026-11-21T00:00Z is no UTC day: export by day",
    ]
    _, problems = read(write(tmp_path / "cur.csv", [cur(1, "1", "x", line_item_line_item_type="Gift")]))
    assert 'row 2: line_item_line_item_type: "Gift" is none of Usage' in problems.lines[0]


def test_other_currencies_need_a_rate(tmp_path: Path) -> None:
    page = openai_page((DAY, [{"amount": {"value": 10, "currency": "eur"}, "line_item": "gpt-4o, input"}]))
    (tmp_path / "x.json").write_text(json.dumps(page))
    _, problems = read(tmp_path / "x.json")
    assert "row 1: is in EUR: give the rate with --usd-per EUR=RATE, USD for one EUR" in problems.lines[0]
    lines, problems = read(tmp_path / "x.json", usd_per={"EUR": Decimal("1.08")})
    assert ([usd(each) for each in lines], len(problems)) == ([Decimal("10.8")], 0)


@pytest.mark.parametrize("wrong", ["EUR", "EUR=0", "EURO=1", "EUR=x", "EUR=NaN", "EUR=-1"])
def test_rates_that_are_none(wrong: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(import_invoice, ["x.json", "--usd-per", wrong, "--data", str(tmp_path)])
    assert (result.exit_code, "write the currency and USD for one of it, as EUR=1.08" in result.output) == (2, True)


# -- statements --------------------------------------------------------------------------------------------------------

Bring = Callable[..., tuple[invoices.Sums, list[invoices.Summary]]]


def test_twice_is_once_and_later_replaces_earlier(bring: Bring, bare: Path, tmp_path: Path) -> None:
    first, later = tmp_path / "first.json", tmp_path / "later.json"
    first.write_text(json.dumps(openai_page((DAY, [cost(1, "gpt-4o, input"), cost(2, "o3, input")]), (NEXT, []))))
    later.write_text(json.dumps(openai_page((DAY, [cost(4, "gpt-4o, input")]))))
    assert bring(first)[1] == [invoices.Summary("openai", 2, 1, 2, Decimal(3))]
    once, before = stored(bare), work.table_file(bare, invoices.TABLE).stat().st_ino
    bring(first)
    assert (stored(bare), work.table_file(bare, invoices.TABLE).stat().st_ino) == (once, before)
    assert bring(later)[1] == [invoices.Summary("openai", 1, 1, 1, Decimal(4), 1, Decimal(3))]
    assert sorted((row["day"], row["item"], row["amount_usd"]) for row in stored(bare)) == [
        (DAY, "gpt-4o, input", 4),
        (NEXT, "(nothing)", 0),
    ]


def test_a_day_on_which_nothing_is_charged_any_more(bring: Bring, bare: Path, tmp_path: Path) -> None:
    (tmp_path / "first.json").write_text(json.dumps(openai_page((DAY, [cost(1, "gpt-4o, input")]))))
    (tmp_path / "later.json").write_text(json.dumps(openai_page((DAY, []))))
    bring(tmp_path / "first.json")
    bring(tmp_path / "later.json")
    assert [(row["item"], row["charge"], row["amount_usd"]) for row in stored(bare)] == [("(nothing)", "none", 0)]


def test_an_estimate_replaces_no_closed_bill(bring: Bring, bare: Path, tmp_path: Path) -> None:
    estimate = write(tmp_path / "estimate.csv", CUR_ROWS)
    closed = [row | {"bill_invoice_id": "4711", "line_item_unblended_cost": "5"} for row in CUR_ROWS[:1]]
    final = write(tmp_path / "closed.csv", closed)
    for paths in ((estimate, final), (final, estimate)):
        for path in paths:
            sums, summaries = bring(path)
        assert [(row["amount_usd"], row["is_final"]) for row in stored(bare)] == [(5, True)]
    assert (sums.other_rows, summaries[0].kept_final, summaries[0].days) == (1, 1, 0)


def test_files_of_one_import_are_read_together(bring: Bring, bare: Path, tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{number}.csv", CUR_ROWS[number::2]) for number in (0, 1)]
    bring(write(tmp_path / "whole.csv", CUR_ROWS))
    whole = stored(bare)
    bring(*parts)
    assert stored(bare) == whole
    bring(*reversed(parts))
    assert stored(bare) == whole


def test_one_bill_does_not_come_in_under_two_names(bring: Bring, bare: Path, tmp_path: Path) -> None:
    (tmp_path / "api.json").write_text(json.dumps(openai_page((DAY, [cost(1, "gpt-4o, input")]))))
    (tmp_path / "mine.csv").write_text("provider,day,amount_usd,account\nopenai,2026-11-20,1,org-1\n")
    bring(tmp_path / "api.json")
    with pytest.raises(UserError, match="openai 2026-11-20: there are charges of the account org-1"):
        bring(tmp_path / "mine.csv")
    bring(tmp_path / "mine.csv", account="default")
    assert [row["item"] for row in stored(bare)] == ["(no item)"]


LINES = st.builds(
    invoice_files.Line,
    st.sampled_from(["openai", "anthropic"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from([DAY, NEXT]),
    st.sampled_from(["gpt-4o, input", "o3, input", "Web Search"]),
    st.sampled_from(["usage", "credit", "tax", "none"]),
    st.integers(-(10**20), 10**20),
    st.sampled_from(["gpt-4o, input", "gpt-4o, output", None]),
    st.sampled_from([True, False, None]),
)


@given(rows=st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=12), seed=st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_the_order_of_rows_and_files_does_not_matter(
    naming: invoices.Naming, rows: list[list[invoice_files.Line]], seed: int
) -> None:
    rows = [[line._replace(atto_usd=0) if line.charge == "none" else line for line in row] for row in rows]
    made = []
    for ordered in (rows, random.Random(seed).sample(rows, len(rows))):
        sums = invoices.Sums()
        for row in ordered:
            sums.add("plain", row)
        made.append(sums.statements(naming))
    assert made[0] == made[1]
    lines = [line for each in made[0].values() for line in each]
    assert {(x.provider, x.account, x.day) for x in lines} == {
        (x.provider, x.account, x.day) for row in rows for x in row
    }
    exact = sum((usd(line) for row in rows for line in row), Decimal(0))
    assert abs(sum((line.amount_usd for line in lines), Decimal(0)) - exact) <= Decimal("5e-10") * len(lines)


# -- reconciliation ----------------------------------------------------------------------------------------------------

VIEWS = ("metered_models", "model_keys", "invoice_reconciliation")
CALL = {
    "provider": "VARCHAR",
    "started_at": "TIMESTAMP",
    "duration_ms": "BIGINT",
    "price_status": "VARCHAR",
    "price_id": "VARCHAR",
    "request_model": "VARCHAR",
    "response_model": "VARCHAR",
    "result": "VARCHAR",
    "usage_source": "VARCHAR",
    "list_cost_usd": "DECIMAL(18,9)",
    "contracted_cost_usd": "DECIMAL(18,9)",
}
PARTS = [
    "tax", "credit", "fee", "day_shift", "unmapped", "bypassed", "unpriced", "interrupted", "aborted", "estimated",
    "unexplained",
]  # fmt: skip


@pytest.fixture(scope="module")
def db() -> Iterator[duckdb.DuckDBPyConnection]:
    """The views over tables of calls and invoice lines, which tests fill."""
    with duckdb.connect() as connection:
        for table, columns in (("calls", CALL), ("invoice_lines", work.TABLES["invoice_lines"].columns)):
            connection.execute(
                f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})"
            )
        models = build.load()
        build.create_views(connection, Path(), {name: models[name] for name in VIEWS})
        yield connection


def fill(db: duckdb.DuckDBPyConnection, calls: list[dict[str, Any]], lines: list[dict[str, Any]]) -> None:
    for table, rows, columns in (
        ("calls", calls, list(CALL)),
        ("invoice_lines", lines, list(work.TABLES["invoice_lines"].columns)),
    ):
        db.execute(f"DELETE FROM {table}")
        if rows:
            places = ", ".join("?" for _ in columns)
            db.executemany(f"INSERT INTO {table} VALUES ({places})", [[r.get(c) for c in columns] for r in rows])


def reconciled(db: duckdb.DuckDBPyConnection) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The parts that are not zero, by provider, day and model."""
    result = db.execute("FROM invoice_reconciliation ORDER BY ALL")
    names = [column[0] for column in result.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    assert findings(db) == []
    return {
        (row["provider"], row["day"], row["model"]): {p: v for p in PARTS if (v := row[f"{p}_usd"])} for row in rows
    }


def findings(db: duckdb.DuckDBPyConnection) -> list[Any]:
    checks = build.load(build.FOLDER / "checks")
    return [row for name in ("invoice_parts", "invoice_sums") for row in db.execute(checks[name].sql).fetchall()]


def made(cost: str | None = "1", at: datetime = datetime(2026, 11, 20, 12), **fields: Any) -> dict[str, Any]:  # noqa: DTZ001
    return {
        "provider": "openai",
        "started_at": at,
        "duration_ms": 5,
        "price_status": "exact" if cost else "unpriced",
        "price_id": "openai/gpt-4o@2024-05-13#batch>200000" if cost else None,
        "response_model": "gpt-4o-2024-08-06",
        "result": "completed",
        "usage_source": "reported",
        "list_cost_usd": cost,
        "contracted_cost_usd": cost,
        **fields,
    }


def line(amount: str, **fields: Any) -> dict[str, Any]:
    given = {"provider": "openai", "account": "a", "day": DAY, "item": "gpt-4o, input", "charge": "usage"}
    given |= {"model": "gpt-4o", "is_known_model": True, "amount_usd": Decimal(amount), "rows": 1, "source": "plain"}
    given |= fields
    return {"statement": f"{given['provider']} {given['account']} {given['day']}", **given}


MIDNIGHT = datetime(2026, 11, 20, 23, 59, 59)  # noqa: DTZ001
GPT = ("openai", DAY, "gpt-4o")
CASES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], dict[tuple[Any, ...], dict[str, str]]]] = {
    "all was metered": ([made(), made("2")], [line("3")], {GPT: {}}),
    "no call at all": ([], [line("3")], {GPT: {"bypassed": "3"}}),
    "taxes, credits and fees": (
        [made()],
        [line("1"), line("0.2", charge="tax"), line("-5", charge="credit"), line("4", charge="fee"),
         line("-0.25", charge="discount")],
        {GPT: {"tax": "0.2", "credit": "-5", "fee": "4", "unexplained": "-0.25"}},
    ),
    "one of many has no price": (
        [made(), made(), made(None)], [line("9")], {GPT: {"unpriced": "1", "unexplained": "6"}},
    ),
    "none has a price": ([made(None)], [line("9")], {GPT: {"unpriced": "9"}}),
    "broken off": (
        [made("1", result="client_cancelled", usage_source="estimated"), made("2", result="interrupted"),
         made("4", usage_source="partial"), made("8", result="client_cancelled")],
        [line("30")],
        {GPT: {"aborted": "1", "interrupted": "2", "estimated": "4", "unexplained": "8"}},
    ),
    "less was charged than estimated": (
        [made("4", usage_source="estimated"), made("1")], [line("3")], {GPT: {"estimated": "-2"}},
    ),
    "an item of no model": (
        [made()],
        [line("1"), line("5", item="Web Search", model=None, is_known_model=False),
         line("2", item="gpt-99, input", model="gpt-99", is_known_model=False)],
        {GPT: {}, ("openai", DAY, "Web Search"): {"unmapped": "5"},
         ("openai", DAY, "gpt-99, input"): {"unmapped": "2"}},
    ),
    "a model that only calls know": (
        [made(None, response_model="us.anthropic.claude-opus-9-20270101-v1:0", provider="aws.bedrock")],
        [line("2", provider="aws.bedrock", item="Claude9Opus-input-tokens", model="claude9opus", is_known_model=False)],
        {("aws.bedrock", DAY, "claude9opus"): {"unpriced": "2"}},
    ),
    "answered after midnight": (
        [made("3", MIDNIGHT, duration_ms=2000), made("10")],
        [line("11"), line("2.5", day=NEXT)],
        {GPT: {"day_shift": "-2"}, ("openai", NEXT, "gpt-4o"): {"day_shift": "2", "bypassed": "0.5"}},
    ),
    "not invoiced yet": (
        [made(), made(provider="anthropic")], [line("1")], {GPT: {}, ("anthropic", DAY, "gpt-4o"): {}},
    ),
    "nothing was charged": (
        [made()], [line("0", charge="none", item="(nothing)", model=None)], {GPT: {"unexplained": "-1"}},
    ),
    "refused calls": ([made(), made("0", result="refused")], [line("1")], {GPT: {}}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_residual_is_explained(db: duckdb.DuckDBPyConnection, case: str) -> None:
    calls, lines, expected = CASES[case]
    fill(db, calls, lines)
    assert reconciled(db) == {key: {p: Decimal(v) for p, v in parts.items()} for key, parts in expected.items()}


def test_what_no_import_covers_is_unknown_not_zero(db: duckdb.DuckDBPyConnection) -> None:
    fill(db, [made()], [])
    assert db.execute(
        "SELECT is_invoiced, invoiced_usd, residual_usd, unexplained_usd, capture_percent, metered_usd "
        "FROM invoice_reconciliation"
    ).fetchall() == [(False, None, None, None, None, 1)]


AMOUNTS = st.integers(-(10**6), 10**10).map(lambda nano: Decimal(nano).scaleb(-9))
RESULTS = ["completed", "client_cancelled", "upstream_cut", "interrupted", "refused", "upstream_error"]
SOME_CALLS = st.lists(
    st.builds(
        lambda cost, hours, **fields: made(
            None if cost is None else str(abs(cost)), datetime(2026, 11, 20) + timedelta(hours=hours), **fields  # noqa: DTZ001
        ),
        st.none() | AMOUNTS,
        st.integers(0, 71),
        duration_ms=st.sampled_from([5, 3_600_000]),
        response_model=st.sampled_from(["gpt-4o", "gpt-4o-2024-08-06", "o3", None]),
        price_id=st.sampled_from(["openai/gpt-4o", "openai/o3*1.1", None]),
        result=st.sampled_from(RESULTS),
        usage_source=st.sampled_from(["reported", "estimated", "partial", "none"]),
        provider=st.sampled_from(["openai", "anthropic"]),
    ),
    max_size=15,
)  # fmt: skip
SOME_LINES = st.lists(
    st.builds(
        lambda amount, **fields: line(str(amount), **fields),
        AMOUNTS,
        day=st.sampled_from([DAY, NEXT, NEXT + timedelta(days=1)]),
        item=st.sampled_from(["gpt-4o, input", "o3, input", "Web Search"]),
        charge=st.sampled_from(["usage", "discount", "credit", "tax", "fee"]),
        model=st.sampled_from(["gpt-4o", "o3", "gpt-99", None]),
        is_known_model=st.booleans(),
    ),
    max_size=15,
)


@given(calls=SOME_CALLS, lines=SOME_LINES)
@settings(max_examples=12, deadline=None)
def test_parts_sum_to_the_residual_whatever_happened(
    db: duckdb.DuckDBPyConnection, calls: list[dict[str, Any]], lines: list[dict[str, Any]]
) -> None:
    fill(db, calls, [each | {"is_known_model": each["is_known_model"] and bool(each["model"])} for each in lines])
    assert findings(db) == []


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        ("invoice_parts", "unexplained_usd + 0.000000001 AS unexplained_usd"),
        (
            "invoice_parts",
            "1::DECIMAL(18,9) AS bypassed_usd, unexplained_usd - 1 AS unexplained_usd, -1 AS estimated_usd",
        ),
        ("invoice_sums", "invoiced_usd * 2 AS invoiced_usd"),
        ("invoice_sums", "calls + 1 AS calls"),
        ("invoice_sums", "0.5::DECIMAL(18,9) AS day_shift_usd"),
    ],
)
def test_checks_find_what_they_are_for(db: duckdb.DuckDBPyConnection, check: str, wrong: str) -> None:
    fill(db, [made(), made()], [line("3")])
    query = build.load(build.FOLDER / "checks")[check].sql
    assert db.execute(query).fetchall() == []
    tampered = f"(SELECT * REPLACE ({wrong}) FROM invoice_reconciliation) AS tampered"
    assert len(db.execute(query.replace("FROM invoice_reconciliation", f"FROM {tampered}")).fetchall()) == 1


def test_the_report(run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {"provider": "openai", "response_model": "gpt-4o-2024-08-06", "price_id": "openai/gpt-4o"}
    segment(data, [call(list_cost_nano=2_000_000_000, **usual), call(price_status="unpriced", **UNPRICED, **usual)])
    (tmp_path / "x.json").write_text(
        json.dumps(openai_page((DAY, [cost(5, "gpt-4o, input"), cost("0.25", "web search tool calls")])))
    )
    code, out, _ = run("import", "invoice", "x.json")
    assert code == 0
    assert "The price book has no model for: web search tool calls" in out
    code, out, _ = run("report", "invoices", "--json")
    [row] = json.loads(out)
    assert code == 0
    assert (row["provider"], row["invoiced_usd"], row["metered_usd"], row["capture_percent"]) == (
        "openai",
        5.25,
        2,
        38.1,
    )
    assert (row["unmapped_usd"], row["unpriced_usd"], row["unexplained_usd"], row["unpriced_calls"]) == (0.25, 2, 1, 1)
    code, out, _ = run(
        "report", "invoices", "--by", "model", "--format", "csv", "--from", "2026-11-20", "--to", "2026-11-20"
    )
    assert [line.split(",")[:3] for line in out.splitlines()[1:]] == [
        ["openai", "gpt-4o", "5.000000000"],
        ["openai", "web search tool calls", "0.250000000"],
    ]
    assert run("report", "invoices", "--by", "day", "--from", "2026-11-21")[1].count("openai") == 0
    assert run("report", "invoices", "--from", "2026-11-21", "--to", "2026-11-20")[0] == 2
    code, out, _ = run("verify")
    assert (code, "All is well." in out) == (0, True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "140")
    errors = run("report", "invoices")[2]
    left_out = errors.partition("Left out, as the window is narrow: ")[2].splitlines()[0].rstrip(".").split(", ")
    assert {"credit_usd", "fee_usd"} <= {*left_out}
    assert not {"unexplained_usd", "not_invoiced_usd", "unmapped_usd"} & {*left_out}


UNPRICED: dict[str, Any] = {"list_cost_nano": None, "input_cost_nano": None, "output_cost_nano": None}
