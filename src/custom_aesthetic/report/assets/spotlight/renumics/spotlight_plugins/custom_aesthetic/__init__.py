"""A plugin of Spotlight: its page selects the first pictures when it opens."""
