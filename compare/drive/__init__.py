"""Each contestant behind the one interface of contestants.py."""
