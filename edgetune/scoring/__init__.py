"""Scoring of files of any number of rows: exact, and resumable wherever it was broken off.

A way through: `sources` cuts the input files into shards, the same ones each time; `plan` names the part that each
becomes by a digest of all that it depends on; `worker` makes a part; `local` and `on_ray` hand shards to workers; `run`
does what is missing, and tells when all parts are there. A part is written whole or not at all, and its bytes follow
from its name, so whoever writes it, and however often, makes no difference.
"""
