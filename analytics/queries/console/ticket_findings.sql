-- Findings of waste about a ticket, or with calls for it. One row per finding.
WITH names AS (
  SELECT list(name) AS names FROM (SELECT name FROM ticket_names WHERE ticket_id = $ticket UNION SELECT $ticket)
),
for_it AS (
  SELECT call_id FROM calls, names WHERE list_has_any(tickets, names)
)
SELECT finding_id, rule, title, state, calls, unpriced_calls, claimed_usd, recoverable_usd, sentence
FROM waste_findings
WHERE ticket_id = $ticket OR list_has_any(call_ids, (SELECT list(call_id) FROM for_it))
ORDER BY claimed_usd DESC, finding_id
