"""Local optimisers, one a file: `NAME(parameters, learning_rate, *, options) -> torch.optim.Optimizer`."""
