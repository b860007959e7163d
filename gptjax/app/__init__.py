"""What talks to people: flags, the scripts' bodies, the training loop and its reports."""
