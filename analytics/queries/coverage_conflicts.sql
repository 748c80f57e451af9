-- Spend on tickets where weaker evidence named other ones. The number of a branch may be none, so it is not one of them.
SELECT
  ticket_source,
  split_part(others[1], ':', 1) AS other_source,
  count(*) AS calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM (
  SELECT *, list_filter(ticket_candidates, lambda each:
    NOT list_contains(tickets, substr(each, strpos(each, ':') + 1))
    AND NOT contains(each, ':(') AND NOT (starts_with(each, 'branch:') AND contains(each, '#'))
  ) AS others
  FROM calls
  WHERE ($from IS NULL OR started_at >= CAST($from AS TIMESTAMP))
    AND ($to IS NULL OR started_at < CAST($to AS TIMESTAMP))
    AND ($team IS NULL OR team_id = $team)
    AND len(tickets) > 0 AND len(ticket_candidates) > 0
)
WHERE len(others) > 0
GROUP BY ALL
ORDER BY list_cost_usd DESC, ticket_source, other_source
