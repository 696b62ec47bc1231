"""Check a folder of calibration images before a conversion depends on it."""
