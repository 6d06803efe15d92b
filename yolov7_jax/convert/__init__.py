"""Weights in and out: PyTorch checkpoints, names, `.safetensors`."""
