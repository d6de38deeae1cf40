"""The scheduler: one process for each workspace that observes, decides, persists and acts."""
