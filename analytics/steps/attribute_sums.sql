-- What changes, by rule.
SELECT
  rule,
  count(*) AS calls,
  count(*) FILTER (WHERE list_cost_usd IS NULL) AS unpriced_calls,
  coalesce(sum(list_cost_usd), 0) AS list_cost_usd
FROM changes
GROUP BY rule
ORDER BY rule
