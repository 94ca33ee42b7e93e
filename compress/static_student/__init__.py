"""The static student: a small model of token and pair vectors that learns the tuned model's answers."""
