"""Rows that a person should look at before anything is learnt: near duplicates, and labels that are probably wrong."""
