"""The version, written into every run."""

__version__ = "0.2.0"

# Versions that drew initial values and dropout's masks from other keys. A run from one of them can
# be resumed, but its results will not equal that version's bit for bit.
OTHER_RANDOM_NUMBERS = ("0.1.0",)
