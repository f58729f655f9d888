"""`make bench`: what a decision costs, as ratios taken in one run."""
