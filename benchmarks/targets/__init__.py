"""Proving a bundle for processors that are not at hand: emulators, the replay, and the verdict."""
