"""Training: recipes, synthesis from label maps, the training loop."""
