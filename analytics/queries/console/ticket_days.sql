-- Spend on a ticket by day. One row per UTC day and team.
SELECT
  CAST(started_at AS DATE) AS slot, coalesce(team_id, '(no team)') AS series, count(*) AS calls,
  count(*) - count(list_cost_usd) AS unpriced_calls, coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM ticket_parts
GROUP BY ALL
ORDER BY slot, series
