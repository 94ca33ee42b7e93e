"""Files, hub data sets and saved data sets to clean, split examples."""
