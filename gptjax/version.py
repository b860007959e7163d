"""The version, written into every run."""

__version__ = "0.2.0"

# Versions that drew initial values and dropout's masks from other keys. A run that one of them
# began can go on, but not bit for bit as it would have gone on there.
OTHER_RANDOM_NUMBERS = ("0.1.0",)
