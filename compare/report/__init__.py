"""docs/comparison.md: made of the results of a run and of nothing else.

figures.py       medians, spreads, and an order where there is one
tables.py        the page's tables
takeaways.py     its first five sentences
designs.py       contestants that differ only in their design, two by two
sides.py         what functional wins, what objects win
expectations.py  what one might expect, and what this run found
fairness.py, libraries.py   what was done to be fair; the state of the libraries
pictures.py      its two pictures
page.py          all of it together
"""
