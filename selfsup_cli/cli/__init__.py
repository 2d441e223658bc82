"""What the user types: options in, a job out, its result shown. Nothing here imports torch."""
