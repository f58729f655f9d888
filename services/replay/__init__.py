"""`fraud replay`: a file of transactions through a door, as if it happened now, and what became of each."""
