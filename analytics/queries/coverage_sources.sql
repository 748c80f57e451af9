-- Spend by how the ticket is known, and what is known of it.
SELECT
  ticket_source,
  ticket_state,
  CAST(sum(calls) AS BIGINT) AS calls,
  CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
  sum(list_cost_usd) AS list_cost_usd,
  round(100 * sum(list_cost_usd) / nullif(sum(sum(list_cost_usd)) OVER (), 0), 1) AS percent
FROM ticket_coverage
WHERE day >= CAST($from AS DATE) AND day < CAST($to AS DATE) AND ($team IS NULL OR team_id = $team)
GROUP BY ticket_source, ticket_state
ORDER BY list_position(['claim', 'key', 'header', 'path', 'metadata', 'branch', 'task', 'none'], ticket_source), ticket_state
