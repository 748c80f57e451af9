"""What findings of waste are said to be, in the words that the gateway and the control plane share."""

from datetime import datetime
from typing import Literal

import msgspec

State = Literal["new", "accepted", "dismissed", "fixed", "regressed"]
Verdict = Literal["new", "accepted", "dismissed"]
Reason = Literal["intended", "test", "wrong_tag", "false_positive", "other"]
NEWS = "findings/news.json"


class News(msgspec.Struct, frozen=True):
    """What the last look that found something new found: `findings/news.json`."""

    as_of: datetime
    findings: int
    claimed_nano: int
