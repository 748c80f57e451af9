-- What did calls cost that did not end well?
SELECT result, finish_reason, count(*) AS calls, sum(list_cost_usd) AS list_cost_usd, count(*) - count(list_cost_usd) AS unpriced_calls
FROM calls
WHERE result <> 'completed'
GROUP BY ALL
ORDER BY list_cost_usd DESC NULLS LAST
