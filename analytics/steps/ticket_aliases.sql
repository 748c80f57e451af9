-- Keys that tickets had before.
SELECT ticket_id, aliases FROM tickets WHERE len(aliases) > 0
