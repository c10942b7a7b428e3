"""Training: the loop and its state, losses, augmentation, checkpoints, several processes, the estimator's distillation."""
