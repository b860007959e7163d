"""A run on disk: its folder, checkpoints, manifests and metrics, and code that checks them."""
