"""Which predictions answer for which box."""
