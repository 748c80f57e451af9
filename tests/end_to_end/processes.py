"""What a process holds, as the kernel tells."""

import gc
import os
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int | None = None) -> int:
    """Memory of a process, by default this one."""
    if pid is None:
        gc.collect()
    return int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1]) * PAGE


def open_files(pid: int) -> int:
    """Descriptors: files, sockets and pipes."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def children(pid: int) -> list[int]:
    """The processes that its main thread has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
