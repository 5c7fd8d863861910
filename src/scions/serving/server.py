"""From a base and a folder of adapters to a running server."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from scions.encoder.base_info import BaseInfo
from scions.errors import UsageError
from scions.serving.adapter_cache import AdapterCache
from scions.serving.http.keys import Keys
from scions.serving.protocols import AdapterReader, RowBatchEncoder
from scions.serving.settings import Settings

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def check_installed() -> None:
    """Raise UsageError, with what to install, where the parts of the extra ``serve`` are missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"the server needs {', '.join(missing)}: pip install 'scions[serve]'")


def check_host(host: str, keys: Keys | None) -> None:
    """Refuse to be open to the network without keys.

    Raises:
        UsageError: ``host`` is not this machine's own address and there are no keys.
    """
    if keys is None and not _is_loopback(host):
        raise UsageError(
            f"--host {host} is open to the network, which needs keys: give --keys FILE, or use --host 127.0.0.1"
        )


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
    """The FastAPI app of a server with every adapter under ``adapters`` registered.

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
    names = {"localhost", "127.0.0.1", "[::1]", host.lower(), f"[{host.lower()}]"}
    return create_app(
        Service(encoder, base_info, adapter_cache, settings, keys), frozenset(names) if keys is None else None
    )


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one.

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
        what = "the port is taken; choose another with --port" if taken else str(error)
        raise UsageError(f"cannot listen on {host}:{port}: {what}") from error
    return listening


def run(app: Any, listening: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C; then take no new requests and finish what runs, ``Settings.drain`` at most."""
    from scions.serving.uvicorn_server import Server

    server = Server(app)
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises the signal once more when it has finished: then all is well, and the exit code should be 0.
        signal.signal(signal.SIGTERM, lambda *_: None)
    server.run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
