"""One file per method, each reading like its chapter: transformation, networks, losses, step."""
