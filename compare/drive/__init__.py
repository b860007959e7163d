"""Wraps each contestant in the interface of contestants.py."""
