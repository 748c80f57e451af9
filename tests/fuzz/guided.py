"""Coverage-guided fuzzing with atheris, which is no dependency: `pip install atheris`, then
`python tests/fuzz/guided.py answers -max_total_time=300`. Its seeds are the recorded streams and requests of
tests/transcripts, in .fuzz/; what breaks a property is written to a file there, which repeats it as an argument."""

import json
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))
with atheris.instrument_imports(include=["gateway"]):
    from gateway.dialects import DIALECTS
    from tests import streams
    from tests.fuzz import targets

HEAD = 8
"""Bytes in front of the content: which dialect, provider, type, and where it is cut."""


def _head(data: bytes) -> tuple[bytes, bytes]:
    return data[:HEAD].ljust(HEAD, b"\0"), data[HEAD:]


def answers(data: bytes) -> None:
    head, content = _head(data)
    targets.answer(
        DIALECTS[head[0] % len(DIALECTS)],
        targets.PROVIDERS[head[1] % len(targets.PROVIDERS)],
        targets.TYPES[head[2] % len(targets.TYPES)],
        content,
        [place * len(content) // 256 for place in head[3:]],
    )


def requests(data: bytes) -> None:
    head, content = _head(data)
    path = targets.PATHS[head[2] % len(targets.PATHS)]
    targets.request(
        DIALECTS[head[0] % len(DIALECTS)], targets.PROVIDERS[head[1] % len(targets.PROVIDERS)], path, content, head[3]
    )


def framings(data: bytes) -> None:
    head, content = _head(data)
    places = [place * len(content) // 256 for place in head[1:]]
    targets.framed(targets.FRAMINGS[head[0] % len(targets.FRAMINGS)], content, places)
    targets.hidden(content, places)


def targets_(data: bytes) -> None:
    raw, _, query = data.decode("latin-1").partition("\n")
    targets.target(raw, {"x-goog-api-key": "x"} if query else {})
    fields = [(name, value) for name, _, value in (line.partition(":") for line in query.split("\n")) if name]
    targets.credential(fields, raw)


TARGETS = {"answers": answers, "requests": requests, "framings": framings, "targets": targets_}


def seed(name: str, folder: Path) -> None:
    """Each recording, spoken to the dialect that it is of."""
    folder.mkdir(parents=True, exist_ok=True)
    for stream in streams.transcripts():
        content, dialect = b"".join(stream.pieces), DIALECTS.index(stream.dialect)
        kind = next((at for at, each in enumerate(targets.TYPES) if each == stream.content_type), 0)
        (folder / f"stream-{stream.name}").write_bytes(bytes([dialect, 0, kind, 0, 20, 60, 130, 200]) + content)
        path = next((at for at, each in enumerate(targets.PATHS) if each == stream.path), 0)
        (folder / f"request-{stream.name}").write_bytes(bytes([dialect, 0, path, 9, 0, 0, 0, 0]) + stream.request)
        (folder / f"target-{stream.name}").write_bytes(f"/openai{stream.path}\nauthorization:Bearer olk_x".encode())
    for file in sorted((ROOT / "tests/transcripts/requests").glob("*.json")):
        given = json.loads(file.read_bytes())
        body = json.dumps(given.get("body", given)).encode()
        (folder / f"asked-{file.stem}").write_bytes(bytes([file.stem.encode()[0], 0, 0, 9, 0, 0, 0, 0]) + body[:8192])


def main() -> None:
    name, *options = sys.argv[1:] or ["answers"]
    if name not in TARGETS:
        sys.exit(f"write one of {', '.join(TARGETS)}, and options of libFuzzer")
    folder = ROOT / ".fuzz" / name
    seed(name, folder)
    atheris.Setup([sys.argv[0], f"-artifact_prefix={folder}/broken-", *options, str(folder)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
