"""Writes the frozen files of generation 1: `schema/` and `golden/gen-1.json` below `guest/protocol/`.

Both are append-only: an entry that was ever written never changes and never goes, because agents inside
running sandboxes speak it. The script refuses to write anything else. It builds the bytes by hand from
`docs/agent-channel.md`, not with `skerry.protocol`, so that the vectors can disagree with our code.

Run: ``python -m tests.compat.generate_golden [--check]``. ``--check`` writes nothing and fails when the files
are not what the script makes.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.compat.golden_frames import invalid_frames, messages, valid_frames
from tests.compat.golden_schema import SCHEMA

ROOT = Path(__file__).resolve().parents[2] / "guest" / "protocol"
SCHEMA_FILE = ROOT / "schema" / "gen-1.json"
GOLDEN_FILE = ROOT / "golden" / "gen-1.json"


def golden() -> dict[str, object]:
    """The vectors as they are written; `golden_frames` says what each part means."""
    return {
        "generation": 1,
        "valid": list(valid_frames()),
        "messages": list(messages()),
        "invalid": list(invalid_frames()),
    }


def changes(old: object, new: object, where: str = "") -> Iterator[str]:
    """Every place where `new` is not `old` with something added at the end of a list or as a new key."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            if key not in new:
                yield f"{where}/{key} is gone"
            else:
                yield from changes(value, new[key], f"{where}/{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(new) < len(old):
            yield f"{where} has lost entries"
        for index, (a, b) in enumerate(zip(old, new, strict=False)):
            # An entry of a list is frozen as a whole; only dictionaries of the schema may grow.
            if a != b:
                yield f"{where}/{index} has changed"
    elif old != new:
        yield f"{where} has changed"


def render(value: object) -> str:
    """JSON with one list entry per line, so that an addition is one added line in a diff."""
    return json.dumps(value, indent=1, ensure_ascii=True) + "\n"


def main(arguments: list[str]) -> int:
    """Write (or with ``--check`` compare) both files; returns the exit status."""
    check = "--check" in arguments
    for path, value in ((SCHEMA_FILE, SCHEMA), (GOLDEN_FILE, golden())):
        text = render(value)
        present = path.read_text() if path.exists() else None
        if present is not None:
            refused = list(changes(json.loads(present), json.loads(text)))
            if refused:
                print(
                    f"{path.name} in {path.parent.name}/ is append-only:",
                    *refused,
                    sep="\n  ",
                    file=sys.stderr,
                )
                return 1
        if check and present != text:
            print(f"{path} is not what the generator makes", file=sys.stderr)
            return 1
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
