"""Presets: what a job is asked to do, checked before anything heavy is imported."""
