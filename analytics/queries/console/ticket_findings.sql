-- Findings of waste about a ticket, or with calls for it. One row per finding.
SELECT finding_id, rule, title, state, calls, unpriced_calls, claimed_usd, recoverable_usd, sentence
FROM waste_findings
WHERE ticket_id = $ticket OR list_has_any(call_ids, (SELECT list(call_id) FROM ticket_parts))
ORDER BY claimed_usd DESC, finding_id
