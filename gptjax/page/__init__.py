"""The page of a run: HTML, CSS and JavaScript, and the functions that fill them with a run."""
