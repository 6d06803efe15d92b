"""The search for settings: what it varies, its study on disk, its trials, and its report."""
