-- What could each team have saved, by rule, each dollar once?
SELECT team_id, rule, count(DISTINCT call_id) AS calls, sum(claimed_usd) AS claimed_usd
FROM waste_claimed
GROUP BY ALL
ORDER BY claimed_usd DESC
