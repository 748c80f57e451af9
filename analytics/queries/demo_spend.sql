-- What calls of the demo's people cost, by team.
SELECT coalesce(team_id, '') AS team_id, count(*) AS calls, coalesce(sum(list_cost_usd), 0) AS usd
FROM calls
WHERE started_at >= $since
GROUP BY ALL
ORDER BY ALL
