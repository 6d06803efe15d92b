"""How good detections are: COCO average precision, confusion, tables of them."""
