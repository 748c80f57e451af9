-- Spend of calls with evidence that was none, by where it stood and why. A call with two such values is in two rows.
SELECT
  split_part(candidate, ':', 1) AS source,
  regexp_extract(candidate, ':\((.*)\)$', 1) AS reason,
  count(*) AS calls,
  count(*) FILTER (WHERE len(tickets) = 0) AS untagged_calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM (
  SELECT *, unnest(ticket_candidates) AS candidate
  FROM calls
  WHERE ($from IS NULL OR started_at >= CAST($from AS TIMESTAMP))
    AND ($to IS NULL OR started_at < CAST($to AS TIMESTAMP))
    AND ($team IS NULL OR team_id = $team)
    AND len(ticket_candidates) > 0
)
WHERE contains(candidate, ':(')
GROUP BY ALL
ORDER BY list_cost_usd DESC, source, reason
