"""What a user would write, and the demo that runs it."""
