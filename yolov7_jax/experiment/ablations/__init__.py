"""The paper's ablations as data, and what is made of their results: statistics, tables, a figure."""
