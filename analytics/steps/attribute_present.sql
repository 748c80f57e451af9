-- Tickets by their present keys; and a pull request that was taken for a ticket is its tickets.
UPDATE looked
SET tickets = named.tickets, rule = CASE WHEN looked.tickets = named.tickets THEN rule ELSE coalesce(rule, 'moved') END
FROM (
  WITH present AS (
    SELECT call_id, position, unnest(
      CASE WHEN names.ticket_id IS NULL AND len(prs.tickets) > 0 THEN prs.tickets
        ELSE [coalesce(names.ticket_id, ticket)] END
    ) AS ticket
    FROM (
      SELECT call_id, unnest(tickets) AS ticket, generate_subscripts(tickets, 1) AS position
      FROM looked WHERE in_span
    ) LEFT JOIN ticket_names AS names ON names.name = ticket
      LEFT JOIN pr_evidence AS prs ON prs.reference = ticket
  )
  SELECT call_id, list(ticket ORDER BY position, ticket) AS tickets
  FROM (SELECT call_id, ticket, min(position) AS position FROM present GROUP BY ALL)
  GROUP BY call_id
) AS named
WHERE looked.call_id = named.call_id
