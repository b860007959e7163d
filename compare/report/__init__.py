"""Makes docs/comparison.md from the results of a run, and from nothing else.

figures.py       medians, spreads, and the order of the contestants
tables.py        the page's tables
takeaways.py     the page's first five sentences
designs.py       pairs of contestants that differ only in their design
sides.py         what functional designs win, what objects win
expectations.py  what one might expect, and what this run found
fairness.py, libraries.py   what was done to be fair; the state of the libraries
pictures.py      the page's two pictures
page.py          the whole page
"""
