"""What a run is on the disk: its folder, checkpoints, manifests, metrics, and their checks."""
