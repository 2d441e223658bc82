"""Run directories: provenance, metrics, reports, published numbers. Nothing here needs torch."""
