"""Text: corpora and the user's files, tokenizers, a run's splits, commands to paste."""
