"""Measures a bundle where it runs, holds it against a budget, and shows both; needs the floor only."""
