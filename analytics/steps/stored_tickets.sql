-- Some tickets as they are stored.
FROM tickets WHERE list_contains($ids, ticket_id)
