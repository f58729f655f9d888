"""The embedded stack: a real redis-server and a Kafka-protocol broker as child processes, without Docker."""
