"""The server: the engine of a workspace behind HTTP, for a team."""
