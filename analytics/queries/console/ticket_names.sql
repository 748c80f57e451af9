-- What a ticket is called: its present key, and beside it keys that it had. One row.
SELECT
  asked.ticket_id,
  list_sort(list_distinct([asked.ticket_id, $ticket] || coalesce(list(name) FILTER (WHERE name IS NOT NULL), []))) AS names
FROM (SELECT coalesce((SELECT min(ticket_id) FROM ticket_names WHERE name = $ticket), $ticket) AS ticket_id) AS asked
  LEFT JOIN ticket_names ON ticket_names.ticket_id = asked.ticket_id
GROUP BY asked.ticket_id
