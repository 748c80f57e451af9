"""What is an address of a server: one check for all commands that take one."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

WRITTEN = re.compile(r"https?://[\x21-\x7e]{1,2000}", re.IGNORECASE)
LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?")
NUMBERS = re.compile(r"[0-9.]+")


def is_address(text: str) -> bool:
    """True for `https://outlay.example/prefix`, so written that every HTTP client takes it. Names beyond ASCII are to
    be written as DNS has them."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        if "[" in parts.netloc or NUMBERS.fullmatch(host):
            ip_address(host)
        elif len(host) > 253 or not HOST.fullmatch(host):
            return False
    except ValueError:
        return False
    return WRITTEN.fullmatch(text) is not None and port != 0
