"""Where text comes from: corpora by name, files, and a run's text in two splits."""
