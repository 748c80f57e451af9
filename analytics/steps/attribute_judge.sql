-- What is known of the tickets now; what was known of them when they were called for stays. Of several, the worst counts.
UPDATE looked
SET state =
  CASE WHEN rule IS NULL AND (was_state IN ('known', 'closed') OR judged.state = 'unchecked') THEN was_state
    ELSE judged.state END
FROM (
  SELECT
    call_id,
    ['known', 'closed', 'unchecked', 'unknown'][max(CASE
      WHEN status_category = 'done' AND done_at < started_at THEN 2
      WHEN names.name IS NOT NULL THEN 1
      WHEN synced_at >= started_at + INTERVAL 24 HOUR OR was_unknown THEN 4
      ELSE 3
    END)] AS state
  FROM (
    SELECT call_id, started_at, unnest(tickets) AS ticket,
      was_state = 'unknown' AND list_contains(was_tickets, ticket) AS was_unknown
    FROM looked WHERE in_span
  ) LEFT JOIN ticket_names AS names ON names.name = ticket
    LEFT JOIN projects ON projects.project = regexp_extract(ticket, '^(.+)[-#][0-9]+$', 1)
  GROUP BY call_id
) AS judged
WHERE looked.call_id = judged.call_id
