"""What a model is for: the tasks, how they are told from a model's files, and what is fed, read and compared."""
