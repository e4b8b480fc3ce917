"""`edgetune serve`: the tasks of one bundle behind HTTP, without PyTorch.

The path of a request: `connection` (bytes), `access` (permissions, limits, counters, log), `app` (routes), `messages`
(the request's content), `scheduler` (when it runs), and back. `catalog` holds the tasks; `lifecycle` starts and stops
the server.
"""
