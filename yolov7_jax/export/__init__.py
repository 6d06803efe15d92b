"""Detectors for other runtimes: ONNX files, what OpenVINO makes of them, and engines that run both."""
