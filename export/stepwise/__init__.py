"""Language models as one graph with its key-value cache, proven token by token."""
