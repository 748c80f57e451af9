-- Where is spend that is for no ticket and no declared purpose?
SELECT team_id, client, repo, sum(list_cost_usd) AS list_cost_usd, sum(calls) AS calls, sum(unpriced_calls) AS unpriced_calls
FROM unattributed_spend
GROUP BY ALL
ORDER BY list_cost_usd DESC
LIMIT 50
