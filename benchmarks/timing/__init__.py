"""Speed and memory: base and bundle raced in processes of their own."""
