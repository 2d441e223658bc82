"""Media on disk, and media made up, as sequences of uint8 samples."""
