"""The processes: two doors (api, worker), one decision, and what carries it downstream (relay, updater)."""
