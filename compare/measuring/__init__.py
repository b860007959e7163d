"""Measures the contestants. experiment.py runs all measurements.

equality.py     compares logits, gradients, losses and greedy tokens from one set of weights
sameness.py     counts the matrix products of their programs
measurement.py  measures times and memory in turns, each contestant in its own process (worker.py)
host.py         measures what the host does around a training step
"""
