"""Build and run the server of a base and a folder of adapters."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.encoder.base_info import BaseInfo
from scions.errors import UsageError
from scions.serving.adapter_cache import AdapterCache, AdapterReader
from scions.serving.settings import Settings
from scions.serving.workers import RowBatchEncoder

if TYPE_CHECKING:
    from scions.serving.http.keys import Keys

REQUIRED = ("fastapi", "pydantic", "uvicorn", "prometheus_client", "orjson")


def check_installed() -> None:
    """Raise UsageError, with the install command, where packages of the extra ``serve`` are missing."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"the server needs {', '.join(missing)}: pip install 'scions[serve]'")


def check_host(host: str, keys: Keys | None) -> None:
    """Refuse to be open to the network without keys.

    Raises:
        UsageError: ``host`` is not this machine's own address and there are no keys.
    """
    if keys is None and not _is_loopback(host):
        raise UsageError(f"`host={host!r}` is open to the network, which needs `keys=...`; or use `host='127.0.0.1'`")


def build(
    encoder: RowBatchEncoder,
    base_info: BaseInfo,
    read: AdapterReader,
    adapters: str | Path,
    *,
    host: str = "127.0.0.1",
    settings: Settings | None = None,
    keys: Keys | None = None,
) -> Any:
    """Return the FastAPI app of a server with every adapter under ``adapters`` registered.

    Args:
        encoder: the base; `DomainEncoder` is one.
        base_info: its description.
        read: reads the folder of an adapter.
        adapters: the folder that holds the adapters.
        host: the address that the server will listen on.
        settings: its limits; None for the defaults.
        keys: its API keys; None serves this machine only.

    Raises:
        UsageError: ``adapters`` is no folder, ``host`` needs keys, or the extra ``serve`` is not installed.
    """
    check_installed()
    from scions.serving.app import create_app
    from scions.serving.service import Service

    check_host(host, keys)
    settings = settings or Settings()
    adapter_cache = AdapterCache(adapters, read, settings.memory)
    adapter_cache.scan()
    service = Service(encoder, base_info, adapter_cache, settings, keys)
    local = frozenset({"localhost", "127.0.0.1", "[::1]", host.lower(), f"[{host.lower()}]"})
    return create_app(service, local if keys is None else None)


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket; port 0 takes a free one.

    Raises:
        UsageError: the address is not this machine's, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        problem = "the port is taken; choose another with `port=...`" if taken else str(error)
        raise UsageError(f"cannot listen on {host}:{port}: {problem}") from error
    return listening


def run(app: Any, listening: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, then refuse new requests and give running ones ``Settings.drain`` seconds."""
    from scions.serving.uvicorn_server import Server

    server = Server(app)
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises the signal again when it has finished; without a handler the exit code would not be 0.
        signal.signal(signal.SIGTERM, lambda *_: None)
    server.run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
