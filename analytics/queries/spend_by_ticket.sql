-- Spend by ticket; a call for several is split equally between them. The row without a ticket is all other spend.
WITH parts AS (
  SELECT
    ticket_id, task_id,
    count(*) AS calls,
    count(*) - count(list_cost_usd) AS unpriced_calls,
    sum(list_cost_usd) AS list_cost_usd
  FROM calls
  WHERE len(tickets) < 2
    AND started_at >= CAST($from AS TIMESTAMP) AND started_at < CAST($to AS TIMESTAMP)
    AND ($team IS NULL OR team_id = $team)
  GROUP BY ALL
  UNION ALL
  SELECT
    ticket_id, task_id,
    count(DISTINCT call_id),
    count(DISTINCT call_id) FILTER (WHERE ticket_cost_usd IS NULL),
    sum(ticket_cost_usd)
  FROM call_shares
  WHERE started_at >= CAST($from AS TIMESTAMP) AND started_at < CAST($to AS TIMESTAMP)
    AND ($team IS NULL OR team_id = $team)
  GROUP BY ALL
)
SELECT
  ticket_id,
  count(DISTINCT task_id) AS tasks,
  CAST(sum(calls) AS BIGINT) AS calls,
  CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM parts
GROUP BY ALL
ORDER BY list_cost_usd DESC, ticket_id
