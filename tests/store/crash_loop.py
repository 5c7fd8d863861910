"""Publishes without end until killed: new folders and one that is replaced, each version in several files."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from scions.store.atomic import write_folder

FILES = ("adapter_config.json", "adapter_model.safetensors", "scions.json", "deep/card.txt")


def fill(folder: Path, version: int) -> None:
    (folder / "deep").mkdir()
    for name in FILES:
        with open(folder / name, "w") as stream:
            for _ in range(20):
                stream.write(f"{version}\n" * 50)
                stream.flush()


def whole(folder: Path) -> int:
    """The version that a folder holds; fails where it is not one complete version."""
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == sorted(FILES), found
    lines = [line for name in FILES for line in (folder / name).read_text().splitlines()]
    assert len(lines) == 1000 * len(FILES), len(lines)
    assert len(set(lines)) == 1, set(lines)
    return int(lines[0])


if __name__ == "__main__":
    root = Path(sys.argv[1])
    first = int(sys.argv[2])
    assert "torch" not in sys.modules
    print("ready", flush=True)
    for version in count(first):
        write_folder(root / "kept", lambda folder, v=version: fill(folder, v), force=True)
        write_folder(root / f"fresh-{version}", lambda folder, v=version: fill(folder, v))
