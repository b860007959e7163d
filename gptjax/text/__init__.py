"""Text in and out: corpora and files that a user names, a run's splits, commands to paste."""
