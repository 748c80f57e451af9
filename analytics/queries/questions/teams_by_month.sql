-- What did each team spend, by month?
SELECT date_trunc('month', day) AS month, team_id, sum(list_cost_usd) AS list_cost_usd, sum(unpriced_calls) AS unpriced_calls
FROM spend_daily
GROUP BY ALL
ORDER BY month DESC, list_cost_usd DESC
