"""What anyone can check from the log: that decisions are what they say, and that state is what the log makes it."""
