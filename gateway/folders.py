"""The data folder, however it comes to be: who called, for what and in which task is nobody else's on this machine."""

from pathlib import Path


def make(data: Path) -> None:
    """Make a data folder for its user alone. One that is there stays as it is: its owner may have let a group read it.
    Raises `OSError`."""
    data.parent.mkdir(parents=True, exist_ok=True)
    data.mkdir(mode=0o700, exist_ok=True)
