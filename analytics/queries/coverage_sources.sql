-- Spend by how the ticket is known, and what is known of it.
SELECT *, round(100 * list_cost_usd / nullif(sum(list_cost_usd) OVER (), 0), 1) AS percent
FROM (
  SELECT
    coalesce(ticket_source, 'none') AS ticket_source,
    ticket_state,
    CAST(sum(calls) AS BIGINT) AS calls,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
    coalesce(sum(list_cost_usd), 0) AS list_cost_usd
  FROM (
    SELECT
      ticket_source, ticket_state, count(*) AS calls, count(*) - count(list_cost_usd) AS unpriced_calls,
      sum(list_cost_usd) AS list_cost_usd
    FROM calls
    WHERE ($from IS NULL OR started_at >= CAST($from AS TIMESTAMP))
      AND ($to IS NULL OR started_at < CAST($to AS TIMESTAMP))
      AND ($team IS NULL OR team_id = $team)
    GROUP BY ALL
  )
  GROUP BY ALL
)
ORDER BY list_position(['claim', 'key', 'header', 'path', 'metadata', 'branch', 'task', 'none'], ticket_source), ticket_state
