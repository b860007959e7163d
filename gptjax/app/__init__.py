"""The user interface: flags, the scripts' bodies, the training loop and its reports."""
