"""Quality: metrics, the gate, the search among candidates."""
