"""The compiled part of detection as files for other runtimes: written, read, run."""
