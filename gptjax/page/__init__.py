"""The page of a run: HTML, CSS and JavaScript, and functions that fill them with the run's data."""
