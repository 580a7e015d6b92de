"""Which networks and predictions there are, where they are kept, and how the missing ones are made."""
