"""The operator's settings, and limits for requests."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune_runtime import files


@dataclass(frozen=True)
class Settings:
    """Limits and keys of a server.

    Attributes:
        api_keys: clients must send one of these keys; if empty, no key is needed.
        task_key: the key for loading, replacing and removing tasks; `None` forbids it.
        cors_origins: origins whose pages may use the server from a browser; "*" for all.
        max_rows: maximum number of texts per request.
        max_characters: maximum length of a text in characters. Longer texts than the task's number of tokens are cut
            anyway.
        max_body_bytes: maximum size of a request's body.
        max_task_bytes: maximum size of a task file.
        queue_rows: maximum number of waiting texts.
        queue_s: maximum time until a request starts to run. A request that would wait longer is rejected on arrival.
        client_s: maximum time for a client to send a request's header, and again for its body.
        keep_alive_s: maximum time that an idle connection stays open.
        max_header_bytes: maximum size of a request's header.
        max_connections: maximum number of simultaneous connections.
        watch_s: interval at which the bundle's folder is checked for changed tasks; `None` for never.
        drain_s: how long a server that is asked to stop keeps listening and reports "not ready", so that load balancers
            notice.
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
