"""The API against its own description: schemathesis asks a gateway on a real socket for whatever the description
allows, and for what it does not."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from analytics import live
from gateway import openapi
from gateway.keys import Keys
from tests.conftest import Running
from tests.test_admin_api import declared
from tests.test_live import wait_for

EXAMPLES = 10
CONFIG = """
[checks.positive_data_acceptance]
# 422: what the schema allows and cannot be, such as a moment that is over.
expected-statuses = ["2xx", "401", "403", "404", "409", "422"]
"""


async def test_the_api_is_as_described(gateway: Running, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG, encoding="utf-8")
    _, key = Keys(gateway.dir).create(role="admin")
    with live.serving(gateway.dir):
        await asyncio.to_thread(wait_for, gateway.dir)
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("st"), "--config-file", config, "run",
            f"{gateway.url}/-/api/v1/openapi.json", "--header", f"Authorization: Bearer {key}", "--checks", "all",
            "--max-examples", str(EXAMPLES), "--seed", "1", "--generation-database", "none", "--no-color",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path,
        )  # fmt: skip
        told = (await asyncio.wait_for(process.communicate(), 110))[0].decode()
    assert process.returncode == 0, told
    others = len(declared()) - 1  # but for the description itself
    assert f"{others} selected / {others} total" in told
    assert key not in (gateway.dir / "keys.jsonl").read_text(encoding="utf-8") + told


def test_the_description_names_each_endpoint_once() -> None:
    document = openapi.document(declared())
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert len(operations) == len(declared())
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert "401" in operation["responses"]
        assert ("requestBody" in operation) == ("415" in operation["responses"])


def test_amounts_are_numbers_and_parts_of_paths_are_plain() -> None:
    document = openapi.document(declared())
    assert '"decimal"' not in json.dumps(document)
    assert document["components"]["schemas"]["Balance"]["properties"]["spent_usd"]["type"] == "number"
    assert "/-/api/v1/tickets/{id}" in document["paths"]
    [part] = [
        each for each in document["paths"]["/-/api/v1/budgets/{name}"]["get"]["parameters"] if each["in"] == "path"
    ]
    assert part["schema"]["pattern"] == "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


@pytest.mark.parametrize("name", ["KeyInfo", "MadeKey", "NewKey", "RotatedKey"])
def test_no_digest_is_described(name: str) -> None:
    properties = openapi.document(declared())["components"]["schemas"][name]["properties"]
    assert not {"digest", "public_key"} & properties.keys()
    assert ("secret" in properties) == (name in ("MadeKey", "RotatedKey"))
