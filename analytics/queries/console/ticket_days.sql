-- Spend on a ticket by day. One row per UTC day and team.
SELECT
  CAST(started_at AS DATE) AS slot, coalesce(team_id, '(no team)') AS series, count(DISTINCT call_id) AS calls,
  count(DISTINCT call_id) FILTER (WHERE ticket_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(ticket_cost_usd), 0) AS list_cost_usd
FROM call_tickets
WHERE ticket_id IN (SELECT name FROM ticket_names WHERE ticket_id = $ticket UNION ALL SELECT $ticket)
GROUP BY ALL
ORDER BY slot, series
