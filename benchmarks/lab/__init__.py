"""The laboratory: races, load tests and pages of figures; run from the checkout, not shipped."""
