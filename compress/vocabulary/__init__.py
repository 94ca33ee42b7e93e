"""Cutting a tokenizer's vocabulary down to the tokens that a domain's texts use; one file a kind of tokenizer."""
