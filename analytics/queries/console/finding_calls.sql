-- The calls of a finding, in their order, with what it claims of each. One row per call.
SELECT
  calls.started_at, call_id, calls.team_id, coalesce(response_model, request_model) AS model, client, tickets, task_id, result,
  input_tokens, output_tokens, list_cost_usd, claims.claimed_usd AS part_claimed_usd
FROM calls
  LEFT JOIN (
    SELECT call_id, sum(part.claimed_usd) AS claimed_usd
    FROM (SELECT call_id, unnest(parts) AS part FROM waste_claimed)
    WHERE part.finding_id = $finding
    GROUP BY call_id
  ) AS claims USING (call_id)
WHERE call_id IN (SELECT unnest(call_ids) FROM waste_findings WHERE finding_id = $finding)
ORDER BY calls.started_at, call_id
