"""`edgetune serve`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import click

from edgetune.cli.flags import Command
from edgetune.cli.options import BUNDLE, engine_options, fetched_name, note
from edgetune.stderr import is_terminal
from edgetune_runtime.errors import needs

_WATCH_S = 2.0


@click.command(cls=Command)
@click.argument("bundle", type=BUNDLE)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all addresses.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 for any free one.",
)
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    envvar="EDGETUNE_API_KEY",
    help="API key that clients must send as 'Authorization: Bearer KEY'; repeatable. Better set "
    "EDGETUNE_API_KEY in the environment. [default: everyone may ask]",
)
@click.option("--allow-task-changes", is_flag=True, help="Let clients with the --task-key load and unload tasks.")
@click.option(
    "--task-key",
    envvar="EDGETUNE_TASK_KEY",
    help="Key for changing tasks. Better set EDGETUNE_TASK_KEY in the environment.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    callback=lambda context, option, values: tuple(map(_origin, values)),
    help="Let pages of this origin, such as https://app.example.org, ask from a browser; repeatable; * allows all. "
    "[default: none]",
)
@click.option(
    "--queue-seconds", type=click.FloatRange(0, min_open=True), help="Longest wait of a text in the queue. [default: 1]"
)
@click.option("--queue-rows", type=click.IntRange(1), help="Most texts in the queue. [default: 1024]")
@click.option("--max-rows", type=click.IntRange(1), help="Most texts of one request. [default: 256]")
@click.option("--max-characters", type=click.IntRange(1), help="Most characters of one text. [default: 20000]")
@click.option(
    "--client-seconds",
    type=click.FloatRange(0, min_open=True),
    help="Longest time for a client to send a header, and the same for a body. [default: 10]",
)
@click.option("--max-connections", type=click.IntRange(1), help="Most connections at a time. [default: 1000]")
@click.option(
    "--drain-seconds", type=click.FloatRange(0), help="Seconds to answer 'not ready' before shutting down. [default: 1]"
)
@click.option(
    "--watch",
    is_flag=True,
    help="Take tasks that change in BUNDLE while the server runs, such as by 'fit', 'tasks sync' or 'pull'.",
)
@click.option(
    "--watch-seconds",
    type=click.FloatRange(0.1),
    help="Seconds between two looks of --watch. A change is taken when two looks have seen it. [default: 2]",
)
@click.option(
    "--trust",
    is_flag=True,
    help="The bundle is your own: do not first try its tokenizer and graphs in processes with limited memory and time. "
    "Files that passed here before are not tried again.",
)
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="Log a line for every request.")
@engine_options
def serve(
    bundle: Path,
    host: str,
    port: int,
    api_keys: tuple[str, ...],
    allow_task_changes: bool,
    task_key: str | None,
    cors_origins: tuple[str, ...],
    queue_seconds: float | None,
    queue_rows: int | None,
    max_rows: int | None,
    max_characters: int | None,
    client_seconds: float | None,
    max_connections: int | None,
    drain_seconds: float | None,
    watch: bool,
    watch_seconds: float | None,
    trust: bool,
    access_log: bool,
    precision: str | None,
    device: str,
    threads: int | None,
) -> None:
    """Serve the tasks of BUNDLE over HTTP, without PyTorch, until SIGTERM or Ctrl-C.

    \b
    /                        a page to try the tasks
    /v1/classify             answers of every kind
    /classify                for clients of vLLM, by tasks that give one label
    /v2/models/TASK/infer    Open Inference Protocol (KServe, Triton)
    /v1/embeddings           vectors, for clients of OpenAI
    /rerank                  ranking, for clients of text-embeddings-inference
    /metrics                 Prometheus
    /openapi.json            describes every route

    Logs are JSON lines on stderr. Excess load is rejected immediately with 429. Accepted requests are always answered,
    also after SIGTERM.

    \b
    Example:
      edgetune serve bundle --port 8000
      curl localhost:8000/v1/classify -H 'content-type: application/json' \\
        -d '{"model": "sentiment", "input": "it broke again"}'
    """
    if allow_task_changes and not task_key:
        raise click.UsageError("--allow-task-changes needs a key: set EDGETUNE_TASK_KEY, or --task-key")
    if not all(key.strip() for key in api_keys):
        raise click.UsageError("an empty --api-key keeps nobody out: give a key, or leave it out")
    if watch_seconds is not None and not watch:
        raise click.UsageError("--watch-seconds says how often --watch looks: give that too, or leave it out")
    if (named := fetched_name()) and (watch or allow_task_changes):
        raise click.UsageError(
            f"{named} is on the hub, and a fetched bundle does not change: pull it to a folder, and serve that with "
            f"--watch or --allow-task-changes"
        )
    given = {
        "queue_s": queue_seconds,
        "queue_rows": queue_rows,
        "max_rows": max_rows,
        "max_characters": max_characters,
        "client_s": client_seconds,
        "max_connections": max_connections,
        "drain_s": drain_seconds,
        "watch_s": (watch_seconds or _WATCH_S) if watch else None,
    }
    with needs("serve"):
        from edgetune.server.lifecycle import listen
        from edgetune.server.lifecycle import serve as run
        from edgetune.server.log import log_to_stderr
        from edgetune.server.service import Service
        from edgetune.server.settings import Settings
    from edgetune_runtime.bundle import Bundle
    from edgetune_runtime.engine import Engine
    from edgetune_runtime.probe import probe_once

    settings = Settings(
        api_keys=api_keys,
        task_key=task_key if allow_task_changes else None,
        cors_origins=cors_origins,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    log = log_to_stderr(access_log)
    if not settings.api_keys and host not in ("127.0.0.1", "::1", "localhost"):
        note(f"warning: everyone who reaches {host} may ask: set EDGETUNE_API_KEY to change that")
    opened = Bundle(bundle)
    if not trust:
        graphs = [opened.precision(precision)] if precision else filter(opened.has_graph, opened.manifest.graphs)
        probe_once(opened, graphs)
    with Engine(opened, precision, device, threads) as engine, listen(host, port) as listener:
        service = Service(engine, settings)
        log.count_with(service.metrics.log_lines_dropped.inc)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"

        def say_ready() -> None:
            note(f"{named or bundle}: {len(service.catalog.tasks())} tasks on {address}")
            if is_terminal():
                note("open this address in a browser to try the tasks; Ctrl-C ends the server")

        run(service, listener, say_ready)


def _origin(value: str) -> str:
    """An origin in the form that browsers send."""
    if value in ("*", "null"):
        return value
    try:
        parts = urlsplit(value.lower())
        port = parts.port
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is not an origin ({error}): expected scheme://host or scheme://host:port"
        ) from error
    rest = (parts.path.strip("/"), parts.query, parts.fragment, parts.username)
    if not (parts.scheme and parts.hostname and value.isascii()) or any(rest):
        raise click.BadParameter(
            f"{value!r} is not an origin: expected scheme://host or scheme://host:port, and no path"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = port is None or port == {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{host}" + ("" if usual else f":{port}")
