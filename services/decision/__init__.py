"""The decision: a pure policy, and the use case read, score, judge, commit that both doors call."""
