"""Learn visual representations without labels, and see what was learned."""

__version__ = "0.1.0"
