"""Which predictions are assigned to which box: candidates (numpy, in the loader), assigners (in the step)."""
