"""Write docs/openapi.json from the routes of the server.

    python docs/generate_openapi.py [--check]

With --check nothing is written, and the exit code says whether the file is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

FILE = Path(__file__).parent / "openapi.json"


def text() -> str:
    """Return the text of the file."""
    from scions.serving.app import routes
    from scions.serving.http.openapi import document

    return document(routes())


def main() -> int:
    new = text()
    if "--check" in sys.argv[1:]:
        return int(not FILE.exists() or FILE.read_text(encoding="utf-8") != new)
    FILE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
