"""Linear models of n-grams: what labelled texts give away without any pretrained model."""
