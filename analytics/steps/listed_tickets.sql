-- Tickets of one project that its tracker should still have under the same id.
SELECT ticket_id
FROM tickets
WHERE source = $source AND project = $project AND resolution IS DISTINCT FROM $deleted
  AND ticket_id NOT IN (SELECT unnest(aliases) FROM tickets)
