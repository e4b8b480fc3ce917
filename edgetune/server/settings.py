"""What an operator may set, and the bounds of what a client may send."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune_runtime import files


@dataclass(frozen=True)
class Settings:
    """Limits and keys of a server.

    Attributes:
        api_keys: keys of which a client has to send one; none: everyone may ask.
        task_key: the key to load, replace and unload tasks with; `None`: nobody may.
        cors_origins: origins whose pages may ask and read answers in a browser; "*": all.
        max_rows: most texts of one request.
        max_characters: most characters of one text; it is cut to the task's length in tokens anyway, after it was read.
        max_body_bytes: most bytes of a request.
        max_task_bytes: most bytes of a task file that is loaded.
        queue_rows: most texts that wait.
        queue_s: longest that a request waits to begin; one that would wait longer is refused when it comes.
        client_s: longest that a client may take to send a request's header, and again its body.
        keep_alive_s: longest that a connection stays open with nothing asked.
        max_header_bytes: most bytes of a request's header.
        max_connections: most connections at a time.
        watch_s: how often the bundle's folder is looked at for tasks that changed; `None`: never.
        drain_s: how long a server that is told to end goes on listening, not ready, so that balancers turn away.
    """

    api_keys: tuple[str, ...] = ()
    task_key: str | None = None
    cors_origins: tuple[str, ...] = ()
    max_rows: int = 256
    max_characters: int = 20_000
    max_body_bytes: int = 8_000_000
    max_task_bytes: int = files.TASK_LIMIT_BYTES
    queue_rows: int = 1024
    queue_s: float = 1.0
    client_s: float = 10.0
    keep_alive_s: float = 30.0
    max_header_bytes: int = 16_384
    max_connections: int = 1000
    watch_s: float | None = None
    drain_s: float = 1.0
