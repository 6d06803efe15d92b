"""Training: loss, optimizer, step, loop and what they leave behind."""
