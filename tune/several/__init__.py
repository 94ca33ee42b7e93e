"""Several tasks on one encoder: what is learnt together. Each task by itself is one of `edgetune.tune.tasks`."""
