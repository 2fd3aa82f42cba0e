"""The one training loop, which knows no task: tasks hand it datasets, a model and a loss."""
