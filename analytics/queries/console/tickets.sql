-- Tickets by what they cost in a span of days, and what became of them. lost_cost_usd is what was spent on those that delivered nothing; NULL where the tracker was not read.
SELECT
  tickets.ticket_id, title, tickets.type, tickets.outcome, list_cost_usd, lost_cost_usd, contracted_cost_usd,
  round(100 * list_cost_usd / nullif(sum(list_cost_usd) OVER (), 0), 1) AS percent,
  calls, unpriced_calls, tasks, teams, last_call_at
FROM (
  SELECT
    ticket_id,
    any_value(type) AS type,
    any_value(outcome) AS outcome,
    sum(list_cost_usd) AS list_cost_usd,
    CASE WHEN any_value(outcome) IS NOT NULL THEN coalesce(
      sum(list_cost_usd) FILTER (WHERE outcome IN ('abandoned', 'stale', 'reverted', 'unknown_ticket')), 0
    ) END AS lost_cost_usd,
    sum(contracted_cost_usd) AS contracted_cost_usd,
    CAST(sum(calls) AS BIGINT) AS calls,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
    count(DISTINCT task_id) AS tasks,
    list_sort(list(DISTINCT team_id) FILTER (WHERE team_id IS NOT NULL)) AS teams,
    max(last_call_at) AS last_call_at
  FROM task_days
  WHERE ticket_id IS NOT NULL AND day >= CAST($from AS DATE) AND day < CAST($to AS DATE)
    AND ($team IS NULL OR team_id = $team)
  GROUP BY ticket_id
) AS tickets
  LEFT JOIN tickets AS known USING (ticket_id)
WHERE CASE $only
  WHEN '' THEN true
  WHEN 'nothing' THEN outcome IN ('abandoned', 'stale', 'reverted', 'unknown_ticket')
  ELSE coalesce(outcome, 'unread') = $only
END
ORDER BY list_cost_usd DESC, ticket_id
