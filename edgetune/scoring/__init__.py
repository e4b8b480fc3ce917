"""Score files of any number of rows: exact, and resumable after any interruption.

Overview: `sources` cuts the input files into the same shards every time. `plan` names the part for each shard after a
digest of everything that the part depends on. `worker` makes a part. `local` and `on_ray` hand shards to workers. `run`
makes the missing parts, and reports when all parts exist. Parts are written atomically, and a part's name determines
its bytes, so it does not matter who writes it, or how often.
"""
