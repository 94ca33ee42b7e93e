"""What the roof says of the family `stepwise`, language models, which answer token by token with a cache."""
