"""Proof of several tasks on one encoder: each is judged by itself, and a candidate is packed where all hold."""
