-- Findings of waste that a call is part of. One row per finding.
SELECT finding_id, rule, title, state, claimed_usd, sentence
FROM waste_findings
WHERE list_contains(call_ids, $call)
ORDER BY claimed_usd DESC, finding_id
