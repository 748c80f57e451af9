-- Calls of a span of days and of the one before it, summed up. One row per UTC day, team, and what the calls were for.
SELECT
  CAST(started_at AS DATE) AS day,
  team_id,
  CASE WHEN len(tickets) > 0 THEN 'ticket' WHEN purpose IS NOT NULL THEN 'overhead' ELSE 'nothing' END AS spent_for,
  count(*) AS calls,
  count(*) - count(list_cost_usd) AS unpriced_calls,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM calls
WHERE started_at >= $before AND started_at < $to
GROUP BY ALL
