"""How good detections are: COCO average precision, confusion, pictures and tables of them."""
