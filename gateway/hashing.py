"""Keyed hashes: the same text gives the same identifier in one installation, which tells nothing without its key."""

import contextlib
import errno
import hashlib
import os
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from gateway import folders

KEY_BYTES = 32


def load_key(data_dir: Path) -> bytes:
    """The installation's key, `hash.key` in the data folder, made when it is missing. Raises `OSError`."""
    file = data_dir / "hash.key"
    folders.make(data_dir)
    with contextlib.suppress(FileNotFoundError):
        if len(key := file.read_bytes()) == KEY_BYTES:
            return key
    aside = file.with_name(f"hash.key.{os.getpid()}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, secrets.token_bytes(KEY_BYTES))
        os.fsync(fd)
    finally:
        os.close(fd)
    with contextlib.suppress(FileExistsError):  # another gateway was first
        os.link(aside, file)
    aside.unlink()
    if len(key := file.read_bytes()) != KEY_BYTES:
        raise OSError(errno.EINVAL, f"{file} is damaged: remove it, and what it was used for begins anew")
    return key


def digest(secret: str) -> str:
    """SHA-256, hex. For secrets of enough random bits alone."""
    return hashlib.sha256(secret.encode()).hexdigest()


def keyed(key: bytes, text: str) -> str:
    """32 hex digits."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), key=key, digest_size=16).hexdigest()


def keyed_parts(key: bytes) -> Callable[[Sequence[bytes]], str]:
    """(parts in a row, told apart by their lengths) → 32 hex digits. SHA-256, which with the instructions that
    processors have for it takes half of BLAKE2's time; cut to half its length, nothing can be added behind the parts.
    """
    begun, length = hashlib.sha256(key.ljust(64, b"\0")), b"%d:".__mod__

    def digest_of(parts: Sequence[bytes]) -> str:
        found = begun.copy()
        pieces = chain.from_iterable(zip(map(length, map(len, parts)), parts, strict=True))
        deque(map(found.update, pieces), maxlen=0)  # each in turn, without a copy
        return found.hexdigest()[:32]

    return digest_of
