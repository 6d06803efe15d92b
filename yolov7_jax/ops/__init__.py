"""Arrays in, arrays out: boxes, IoU, decoding, NMS, polygons."""
