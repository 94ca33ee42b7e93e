"""Language models measured: what tuning gained, what fewer bits lost, and how fast they decode."""
