"""Arrays in, arrays out: boxes, overlaps, decoding, suppression."""
