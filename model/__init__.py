"""The model's way: simulated transactions, the training data, training and export, and the scorer that serves it."""
