"""What differs between trainings. A file here with a class `Task` is a task that a config's `task` can name."""
