"""Transactions, features as data, and the tiles they are read from, in memory and in Redis."""
