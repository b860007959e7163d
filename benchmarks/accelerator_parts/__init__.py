"""The parts of benchmarks/accelerator.py: each module measures one, in a process of its own.

`measure(found, **settings)` calls `found` with a row, a dict for JSON, whenever it knows one; a row
of the same `key` replaces the earlier. `table(rows, ...)` makes Markdown of all rows so far.
"""
