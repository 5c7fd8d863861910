"""Send requests drawn from the OpenAPI file to a server: python benchmarks/serving_fuzz.py --requests 10000

Schemathesis draws requests that fit the file and requests that do not, for every route. An answer must not be a 5xx,
must have a status and a body that the file documents, and must come within --timeout seconds. GET, POST and DELETE of
adapters are included: give the server a folder of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import math
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FILE = Path(__file__).resolve().parents[1] / "docs" / "openapi.json"


def fuzz(url: str, requests: int, timeout: float, key: str | None, seed: int) -> dict[str, Any]:
    """Send at least so many requests; returns counts and what failed."""
    import schemathesis
    from schemathesis.generation import GenerationMode

    schema = schemathesis.openapi.from_dict(json.loads(FILE.read_text(encoding="utf-8")))
    operations = [result.ok() for result in schema.get_all_operations()]
    kinds = [
        (operation, mode) for operation in operations for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    ]
    # Routes without parameters run out of different requests; what is left goes to the bodies.
    kinds.sort(key=lambda kind: kind[0].method.lower() == "post")
    weights = [4 if operation.method.lower() == "post" else 1 for operation, _ in kinds]
    session = Session(url, timeout, {"Authorization": f"Bearer {key}"} if key else {})
    started = time.perf_counter()
    for number, (operation, mode) in enumerate(kinds):
        left = requests - session.sent
        session.draw(operation, mode, math.ceil(left * weights[number] / sum(weights[number:])), seed)
    return {
        "requests": session.sent,
        "seconds": round(time.perf_counter() - started, 1),
        "statuses": dict(sorted(session.statuses.items())),
        "failures": session.failures,
    }


class Session:
    """Sends drawn requests, checks the answers and counts."""

    def __init__(self, url: str, timeout: float, headers: dict[str, str]) -> None:
        self.url, self.timeout, self.headers = url, timeout, headers
        self.sent = 0
        self.statuses: Counter[str] = Counter()
        self.failures: dict[str, str] = {}

    def draw(self, operation: Any, mode: Any, number: int, seed: int) -> None:
        """Up to ``number`` requests of one route."""
        from hypothesis import HealthCheck, Phase, given
        from hypothesis import seed as seeded
        from hypothesis import settings as hypothesis_settings
        from hypothesis.errors import Unsatisfiable

        @seeded(seed)
        @hypothesis_settings(
            max_examples=number,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def each(case: Any) -> None:
            self.send(case, operation.label)

        with contextlib.suppress(Unsatisfiable):  # nothing breaks a route that takes nothing
            each()

    def send(self, case: Any, label: str) -> None:
        """One request and its checks."""
        from schemathesis.checks import not_a_server_error
        from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

        checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
        if self.sent % 2 and label == "POST /v1/embeddings" and isinstance(case.body, dict):
            # A drawn name is no adapter's: without help no request would come as far as the encoder.
            case.body = {key: value for key, value in case.body.items() if key in ("input", "strength", "user")}
            case.body["model"] = "base"
        status = "no answer"
        self.sent += 1
        try:
            answer = case.call(base_url=self.url, headers=self.headers, timeout=self.timeout)
            status = str(answer.status_code)
            case.validate_response(answer, checks=checks)
        except Exception as error:
            self.failures.setdefault(f"{label} {status} {type(error).__name__}", str(error)[:2000])
        self.statuses[f"{label} {status}"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--timeout", type=float, default=10.0)
    parser.add_argument("--key", default=os.environ.get("SCIONS_KEY"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    host = urlsplit(args.url).hostname or ""
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        parser.error("--url must be on this machine")
    record = fuzz(args.url, args.requests, args.timeout, args.key, args.seed)
    text = json.dumps(record, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")
    sys.exit(bool(record["failures"]) or record["requests"] < args.requests)


if __name__ == "__main__":
    main()
