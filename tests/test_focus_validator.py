"""The FinOps Foundation's validator, as an outside referee of exported files: `make focus-validator`.

It needs another Python than ours may be, so it is in a virtual environment of its own; its rules come with it. It ends
with 0 whatever it finds, so what it prints is read.
"""

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

import analytics
from analytics import disk, focus, lake
from tests.journals import segment
from tests.test_corrections import correct
from tests.test_focus import MONTH, NEXT, priced

VALIDATOR = os.environ.get("OUTLAY_FOCUS_VALIDATOR")
CRITERIA = (
    "UNIT_PRICING_SUPPORTED", "PUBLIC_PRICE_LIST_SUPPORTED", "USAGE_MEASUREMENT_SUPPORTED", "SUB_ACCOUNT_SUPPORTED",
    "TAGGING_SUPPORTED", "REGION_SUPPORTED", "ACCOUNT_NAMING_SUPPORTED", "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED",
    "NEGOTIATED_PRICING_SUPPORTED", "MULTIPLE_PRICING_CATEGORIES_SUPPORTED", "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED",
    "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED",
)  # fmt: skip
"""What we say that we tell. All is billed in USD, so there is nothing to say of other currencies."""
CONTRADICTORY = {"InvoiceId-C-004-C", "InvoiceId-C-005-C"}
"""One of them fails with an InvoiceId, the other without."""

pytestmark = pytest.mark.skipif(VALIDATOR is None, reason="make focus-validator installs the validator and runs this")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where it finds its own files: it looks for them below the current folder."""
    assert VALIDATOR is not None
    [package] = (Path(VALIDATOR).absolute().parent.parent / "lib").glob("python*/site-packages/focus_validator")
    (tmp_path / "focus_validator").symlink_to(package)
    return tmp_path


def failed(folder: Path, file: Path) -> set[str]:
    """Names of the rules that it says a file breaks."""
    assert VALIDATOR is not None
    told = subprocess.run(
        [Path(VALIDATOR).absolute(), "--data-file", file, "--validate-version", "1.2", "--block-download",
         "--show-violations", "--applicability-criteria", ",".join(CRITERIA)],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    [total] = re.findall(r"Total: *(\d+)", told)
    assert int(total) > 500
    return set(re.findall(r"^❌ *([\w-]+)", told, re.MULTILINE)) - CONTRADICTORY


@pytest.mark.parametrize("suffix", focus.SUFFIXES)
def test_the_validator_finds_nothing(data: Path, folder: Path, suffix: str) -> None:
    wrong, unpriced = priced(), priced(price_status="unpriced", price_id=None, list_cost_nano=None)
    segment(data, [wrong, unpriced, priced(tickets=("PAY-1", "PAY-2")), priced(tickets=(), ticket_id=None)])
    correct(
        data,
        msgspec.structs.replace(wrong, list_cost_nano=2677, input_cost_nano=1999),
        at=datetime(2026, 12, 3, tzinfo=UTC),
    )
    lake.publish(data)
    (data / disk.MARKER).touch()
    for period in (MONTH, NEXT):
        out = folder / f"{period[0]}{suffix}"
        with analytics.open(data) as db:
            focus.export(db, out, "1.2", *period)
        assert failed(folder, out) == set()


def test_it_would_find_something(data: Path, folder: Path) -> None:
    segment(data, [priced()])
    out = folder / "wrong.csv"
    with analytics.open(data) as db:
        focus.export(db, out, "1.2", *MONTH)
    out.write_text(out.read_text().replace("AI and Machine Learning", "Magic"))
    assert failed(folder, out)
