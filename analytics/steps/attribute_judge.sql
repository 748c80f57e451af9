-- Tickets by their present keys, and what is known of them now. What was known of a ticket when it was called for stays.
UPDATE looked
SET
  tickets = judged.tickets,
  state = CASE WHEN rule IS NULL AND (was_state IN ('known', 'closed') OR judged.state = 'unchecked') THEN was_state
    ELSE judged.state END
FROM (
  WITH named AS (
    SELECT call_id, started_at, was_state, unnest(tickets) AS ticket, generate_subscripts(tickets, 1) AS position,
      list_contains(was_tickets, ticket) AND was_state = 'unknown' AS was_unknown
    FROM looked WHERE in_span AND len(tickets) > 0
  ),
  present AS (
    SELECT
      call_id, coalesce(names.ticket_id, ticket) AS present_ticket, min(position) AS position,
      max(CASE
        WHEN status_category = 'done' AND done_at < started_at THEN 2
        WHEN names.ticket_id IS NOT NULL THEN 1
        WHEN was_unknown OR synced_at >= started_at + INTERVAL 24 HOUR THEN 4
        ELSE 3
      END) AS worst
    FROM named
      LEFT JOIN ticket_names AS names ON names.name = ticket
      LEFT JOIN projects ON projects.project = regexp_extract(ticket, '^(.+)[-#][0-9]+$', 1)
    GROUP BY ALL
  )
  SELECT
    call_id, list(present_ticket ORDER BY position) AS tickets,
    ['known', 'closed', 'unchecked', 'unknown'][max(worst)] AS state
  FROM present
  GROUP BY call_id
) AS judged
WHERE looked.call_id = judged.call_id
