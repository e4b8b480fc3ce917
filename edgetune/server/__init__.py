"""`edgetune serve`: the tasks of one bundle behind HTTP, without PyTorch.

A request's way: `connection` (bytes), `access` (who may, how much, counted and logged), `app` (which route), `messages`
(what is asked), `scheduler` (when it runs), and back. `catalog` holds the tasks, `lifecycle` begins and ends it all.
"""
