"""Keyed hashes: the same text gives the same identifier in one installation, which tells nothing without its key."""

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway import folders

KEY_BYTES = 32
NONCE_BYTES = 12


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
    """(parts in a row, told apart) → 32 hex digits. The GMAC of each part, then keyed BLAKE2b over these: a universal
    hash under a pseudorandom function, which is one itself (Wegman, Carter). GMAC takes a twelfth of SHA-256's time.

    That all have one nonce would be its end where its value is shown; here BLAKE2b stands before it, and two parts that
    an outsider chooses have the same with a chance of their length in blocks of 16 bytes to 2^128.
    """
    tag = partial(AESGCM(_derived(key)).encrypt, bytes(NONCE_BYTES), b"")  # of what is authenticated, with no text

    def digest_of(parts: Sequence[bytes]) -> str:
        return hashlib.blake2b(b"".join(map(tag, parts)), key=key, digest_size=16).hexdigest()

    return digest_of


def _derived(key: bytes) -> bytes:
    return hashlib.blake2b(key=key, person=b"parts", digest_size=32).digest()
