"""The dashboard: its feed, its endpoints, and the page itself."""
