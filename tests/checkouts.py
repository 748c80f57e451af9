"""Git repositories made by git itself, without the settings of whoever runs the tests."""

import os
import subprocess
from pathlib import Path

ORIGIN = "git@github.com:acme/billing-core.git"
BRANCH = "feature/PAY-123-fix-rounding"
IDENTITY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Dev"), ("EMAIL", "dev@example.com"))
}
ALONE = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", **IDENTITY}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder, env=ALONE, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def make_repository(folder: Path, branch: str = BRANCH) -> Path:
    """One commit, which names another ticket than the branch."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", branch)
    git(folder, "remote", "add", "origin", ORIGIN)
    (folder / "code.py").write_text("print(1)\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "PAY-100 initial")
    return folder
