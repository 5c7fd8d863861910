"""Fixtures: a server around an encoder whose vectors can be computed by hand."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from scions.errors import AdapterError
from scions.serving import BaseInfo, Keys, Settings, build
from scions.store import Base, DomainStatistics, Manifest

WIDTH = 8
LIMIT = 16  # tokens of a text
VOCABULARY = 100
MEANS = {"legal": [1.2, 0, 0, 0, 0, 0, 0, 0], "medical": [0.85, 0.85, 0, 0, 0, 0, 0, 0]}


@dataclass(frozen=True, eq=False)
class FakeWeights:
    """An adapter that is one number, which is added to every vector."""

    name: str
    version: str
    fingerprint: str
    bytes: int
    value: float
    max_length: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    query_side: bool = False
    domain: Any = None


@dataclass
class FakeEncoder:
    """A word is a token: its length. A vector holds the sum of the tokens, their number, and the adapter's number."""

    tokenizer: Any = None
    batches: list[list[Sequence[int]]] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)
    pause: float = 0.0
    poison: int | None = None

    def __post_init__(self) -> None:
        self.open.set()

    def tokenize_rows(
        self, texts: Sequence[str], prompt: str = "", max_length: int | None = None
    ) -> tuple[list[list[int]], int]:
        limit = max_length or LIMIT
        rows = [[min(len(word), VOCABULARY - 1) for word in (prompt + text).split()] or [0] for text in texts]
        return [row[:limit] for row in rows], sum(len(row) > limit for row in rows)

    def encode_rows(
        self, token_ids: Sequence[Sequence[int]], adapters: Sequence[Any], strengths: Sequence[float]
    ) -> np.ndarray:
        self.open.wait(20)
        time.sleep(self.pause)
        self.batches.append(list(token_ids))
        if self.poison is not None and any(self.poison in row for row in token_ids):
            raise RuntimeError("a text nobody may see in a log")
        vectors = np.zeros((len(token_ids), WIDTH), dtype=np.float32)
        for at, (row, weights, strength) in enumerate(zip(token_ids, adapters, strengths, strict=True)):
            added = 0.0 if weights is None else weights.value * strength
            with np.errstate(over="ignore"):
                vectors[at] = [sum(row), len(row), added, 1 / 3, 0, 0, 0, 1]
        return vectors


def read_fake(folder: Path, name: str) -> FakeWeights:
    content = (folder / "adapter_model.safetensors").read_bytes()
    try:
        values = json.loads(content)
    except ValueError:
        raise AdapterError(f"{folder / 'adapter_model.safetensors'}: is cut short") from None
    digest = hashlib.sha256(content).hexdigest()
    more = {key: values[key] for key in ("max_length", "prompts", "query_side") if key in values}
    if (folder / "scions.json").is_file():
        more["domain"] = Manifest.read(folder).domain
    return FakeWeights(name, digest[:12], digest, values["bytes"], values["value"], **more)


def write_fake(root: Path, name: str, value: float, size: int = 100, **more: Any) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_text(json.dumps({"value": value, "bytes": size, **more}))
    return folder


BASE_INFO = BaseInfo(
    id="org/base",
    sha256="b" * 64,
    pooling="mean",
    dimensions=WIDTH,
    vocabulary=VOCABULARY,
    max_length=LIMIT,
    prompts={"query": "q "},
)


@pytest.fixture(autouse=True)
def _few_threads():
    """Servers set their threads themselves."""


@pytest.fixture
def base_info() -> BaseInfo:
    return BASE_INFO


@pytest.fixture
def read() -> Callable[[Path, str], FakeWeights]:
    return read_fake


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "adapters"
    write_fake(place, "legal", 5.0)
    write_fake(place, "medical", 7.0)
    return place


@pytest.fixture
def write(root: Path) -> Callable[..., Path]:
    def make(name: str, value: float, size: int = 100, **more: Any) -> Path:
        return write_fake(root, name, value, size, **more)

    return make


@pytest.fixture
def encoder() -> Iterator[FakeEncoder]:
    fake = FakeEncoder()
    yield fake
    fake.open.set()


@pytest.fixture
def make_app(root: Path, encoder: FakeEncoder) -> Callable[..., Any]:
    def make(keys: dict[str, Any] | None = None, **limits: Any) -> Any:
        known = None
        if keys is not None:
            path = root.parent / "keys.json"
            path.write_text(json.dumps(keys))
            known = Keys.read(path)
        return build(encoder, BASE_INFO, read_fake, root, settings=Settings(**limits), keys=known)

    return make


@contextlib.asynccontextmanager
async def talking(app: Any, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client in the event loop of the app, while it runs."""
    await app.state.service.start()
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            yield client
    finally:
        await app.state.service.close()


@pytest.fixture
def play() -> Callable[..., Any]:
    """Run ``steps(client, service)`` against a server's app."""

    def run(app: Any, steps: Callable[..., Any], **headers: str) -> Any:
        async def session() -> Any:
            async with talking(app, **headers) as client:
                return await asyncio.wait_for(steps(client, app.state.service), 60)

        return asyncio.run(session())

    return run


@pytest.fixture
def ask(make_app: Callable[..., Any], play: Callable[..., Any]) -> Callable[..., httpx.Response]:
    """Send one request to a new server."""

    def send(method: str, path: str, *, keys: Any = None, limits: Any = None, **request: Any) -> httpx.Response:
        def steps(client: httpx.AsyncClient, service: Any) -> Any:
            return client.request(method, path, **request)

        return play(make_app(keys, **(limits or {})), steps)

    return send


@pytest.fixture
def session(make_app: Callable[..., Any], play: Callable[..., Any]) -> Callable[..., Any]:
    """Run ``steps(client, service)`` against a new server."""

    def run(steps: Callable[..., Any], *, keys: Any = None, **limits: Any) -> Any:
        return play(make_app(keys, **limits), steps)

    return run


@contextlib.contextmanager
def running(app: Any) -> Iterator[str]:
    """A real server in a thread; gives its address."""
    from scions.serving.uvicorn_server import Server

    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(app)
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
    thread.start()
    try:
        for _ in range(500):
            if server.started:
                break
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
        assert not thread.is_alive()


@pytest.fixture
def live(make_app: Callable[..., Any]) -> Callable[..., Any]:
    @contextlib.contextmanager
    def start(keys: Any = None, **limits: Any) -> Iterator[str]:
        with running(make_app(keys, **({"drain": 5.0} | limits))) as address:
            yield address

    return start


@pytest.fixture
def describe(root, a_manifest, tiny_base):
    """Write an adapter's scions.json."""

    def write(name, mean=None, variance=0.01, sha256="b" * 64):
        base = Base(id="org/base", weights_sha256=sha256, architecture="bert", hidden_size=8, layers=2)
        domain = None if mean is None else DomainStatistics(mean=mean, spherical_variance=variance, n=5)
        (root / name / "scions.json").write_text(a_manifest(tiny_base, name, base=base, domain=domain).to_json())

    return write


@pytest.fixture
def described(describe):
    """Legal and medical with domains that the fake base's vectors tell apart; gives their means."""
    for name, mean in MEANS.items():
        describe(name, mean)
    return MEANS
