"""What is done to time and to pixels, and the labels that come with it."""
