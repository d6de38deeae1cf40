"""The use cases: what the command line, and later servers and programs, ask of the engine."""
