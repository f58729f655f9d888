"""The HTTP door: parse, decide, answer. Everything that can go wrong is a problem document."""
