"""Where work tables come from: each module reads one kind of source into the rows of `analytics.work`."""
