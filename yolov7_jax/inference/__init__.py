"""Detection: images in, detections out; what is read, drawn and written around it."""
