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
"""As AES-GCM has it."""
LONG_BYTES = 2048
"""To begin a GMAC takes half a microsecond, in which SHA-256 has done a kilobyte; in cold caches more."""


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

    A long part goes in as its GMAC, which takes a twelfth of SHA-256's time: a universal hash under a pseudorandom
    function, which is one itself (Wegman, Carter). All have one nonce, so their values must never leave this function:
    who saw them could work out the key. Two parts that an outsider chooses have the same one with a chance of their
    length in blocks of 16 bytes to 2^128.
    """
    begun = hashlib.sha256(key.ljust(64, b"\0"))
    of_long = hashlib.blake2b(key=key, person=b"long parts", digest_size=32).digest()
    tag = partial(AESGCM(of_long).encrypt, bytes(NONCE_BYTES), b"")  # of what is only authenticated

    def digest_of(parts: Sequence[bytes]) -> str:
        found = begun.copy()
        found.update(
            b"".join([b"%d:%b" % (len(part), part if len(part) < LONG_BYTES else tag(part)) for part in parts])
        )
        return found.hexdigest()[:32]

    return digest_of
