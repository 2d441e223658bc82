"""The straight-line story of each command. Also the Python API."""
