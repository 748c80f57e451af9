"""The way to the control plane, which alone asks the ledger: HTTP over a Unix domain socket in the data folder.

The gateway runs no query itself: none may share an event loop with a stream. `analytics/live.py` is the other side.
"""

import io
import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import aiohttp
from yarl import URL

SOCKET = "control.sock"
ANSWER_SECONDS = 5.0
ASKING_MAX = 500
"""Questions under way; more wait for them."""
ID = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,512}")
"""What may be asked for."""
Kind = Literal["keys", "tasks", "tickets"]
_NOT_RUNNING = (
    "Outlay: the control plane, which knows the spend, is not running. `outlay serve` starts it ([console] enabled) "
    "and starts it again when it ends."
)


class AwayError(Exception):
    """The control plane did not answer. The message says what to do."""


def socket_path(folder: int) -> str:
    """The address of the socket in an open folder. It is short however deep the folder is: the system takes no more
    than 107 bytes."""
    return f"/proc/self/fd/{folder}/{SOCKET}"


class Control:
    """A client of the control plane."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._session: aiohttp.ClientSession | None = None
        """Opened by the first question: a start that fails before has nothing to close."""

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                "http://control",
                # A connection each: the other process may have been started again since the last one.
                connector=aiohttp.UnixConnector(socket_path(self._folder), limit=ASKING_MAX, force_close=True),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        os.close(self._folder)

    async def budget_sums(self, question: bytes, seconds: float) -> bytes:
        """What budgets' accounts have spent, as JSON; question and answer: `balances`. Raises `AwayError`."""
        limit = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._opened().post("/budgets", data=io.BytesIO(question), timeout=limit) as response:
                if response.status == 200:
                    return await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass
        raise AwayError("Outlay: the control plane does not say what budgets have spent.")

    async def findings(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """What is known of findings of waste, or the review of one: status and JSON. Raises `AwayError`."""
        limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        url = URL(f"/findings{path}", encoded=True)
        try:
            async with self._opened().request(method, url, data=io.BytesIO(body), timeout=limit) as response:
                if response.status < 500:
                    return response.status, await response.read()
        except TimeoutError:
            raise AwayError(f"Outlay: the control plane took longer than {ANSWER_SECONDS:g} s. Ask again.") from None
        except (aiohttp.ClientError, OSError):
            raise AwayError(_NOT_RUNNING) from None
        raise AwayError("Outlay: the control plane cannot answer at the moment; its log says why.")

    async def ask(self, kind: Kind, name: str, seconds: float | None = None) -> bytes:
        """What a key, task or ticket has cost, as JSON. Raises `AwayError`."""
        seconds = seconds or ANSWER_SECONDS
        limit = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._opened().get(f"/{kind}/{quote(name, safe='')}", timeout=limit) as response:
                if response.status == 200:
                    return await response.read()
        except TimeoutError:
            raise AwayError(f"Outlay: the control plane took longer than {seconds:g} s. Ask again.") from None
        except (aiohttp.ClientError, OSError):
            raise AwayError(_NOT_RUNNING) from None
        raise AwayError("Outlay: the control plane cannot answer at the moment; its log says why.")
