"""What starts, observes and stops runs on a node."""
