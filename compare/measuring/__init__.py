"""What is measured of the contestants, and how: experiment.py runs it all.

equality.py     one set of weights in all of them: logits, gradients, losses, greedy tokens
sameness.py     the matrix products of their programs, counted
measurement.py  times and memory, each contestant in a process of its own (worker.py), in turns
host.py         what the host does around a training step
"""
