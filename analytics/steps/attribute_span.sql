-- Calls of a span of time, and of a day before and after it, as the latest correction states them: what the rules look
-- at, and was_*, what counts until now. A task that is a guess is none; where one was named to us, the session says nothing.
-- As in rerate_calls, filtered early. A call is kept on the day on which it was recorded, or on a later one.
CREATE OR REPLACE TEMP VIEW span_calls AS
WITH restated AS MATERIALIZED (
  FROM restated_calls
  WHERE day >= CAST(getvariable('first') - INTERVAL 48 HOUR AS DATE)
    AND started_at >= getvariable('first') - INTERVAL 24 HOUR AND started_at <= getvariable('last') + INTERVAL 24 HOUR
)
SELECT
  call_id, started_at, concat(key_id, chr(31), client) AS who, repo, branch, commit_sha, list_cost_usd,
  CASE WHEN task_source <> 'none' THEN task_id END AS task_id,
  CASE WHEN task_source NOT IN ('header', 'path') THEN session_id END AS session_id,
  tickets, ticket_source AS source, ticket_state AS state, ticket_candidates AS candidates,
  tickets AS was_tickets, ticket_source AS was_source, ticket_state AS was_state,
  ticket_candidates AS was_candidates
FROM (
  SELECT *, NULL AS correction, NULL AS corrected_at
  FROM booked_calls ANTI JOIN restated USING (call_id)
  WHERE day >= CAST(getvariable('first') - INTERVAL 48 HOUR AS DATE)
    AND started_at >= getvariable('first') - INTERVAL 24 HOUR AND started_at <= getvariable('last') + INTERVAL 24 HOUR
  UNION ALL BY NAME
  FROM restated
  QUALIFY row_number() OVER (PARTITION BY call_id ORDER BY corrected_at DESC, segment DESC) = 1
)
WHERE recorded_at < getvariable('before') AND result IS DISTINCT FROM 'refused'
