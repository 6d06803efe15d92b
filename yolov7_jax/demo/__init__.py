"""Drawn scenes with known truth: the data of the demonstration and of small ablations."""
