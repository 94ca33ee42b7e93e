"""The pretrained base, its head, and the tuned and merged model."""
