"""The paper's ablations: their tables as data, their runs, and their results."""
