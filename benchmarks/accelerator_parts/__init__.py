"""The parts of benchmarks/accelerator.py. Each module measures one part, in its own process.

`measure(found, **settings)` calls `found` with each row as soon as it is known. A row is a dict for
JSON; it replaces an earlier row with the same `key`. `table(rows, ...)` formats rows as Markdown.
"""
