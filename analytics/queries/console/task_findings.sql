-- Findings of waste with calls of a task. One row per finding.
SELECT finding_id, rule, title, state, calls, unpriced_calls, claimed_usd, recoverable_usd, sentence
FROM waste_findings
WHERE list_has_any(call_ids, (SELECT list(call_id) FROM calls WHERE task_id = $task))
ORDER BY claimed_usd DESC, finding_id
