"""Load that is honest: an open loop, latencies from the intended send time, a verdict from exact counts."""
