"""What `import edgetune` offers: build, tune, load, predict and compare as functions, for notebooks and scripts."""
