"""Tools for data sets: check, fix, split, convert, statistics, anchors."""
