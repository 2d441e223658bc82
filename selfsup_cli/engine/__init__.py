"""The one loop that trains everything, and what it needs: devices, schedules, checkpoints."""
