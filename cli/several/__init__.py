"""Several tasks on one encoder: their recipe, plan, stages and tables."""
