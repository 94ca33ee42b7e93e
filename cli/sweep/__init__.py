"""A search for better hyper-parameters: the space, the study that lies on disk, the trials, and their page."""
