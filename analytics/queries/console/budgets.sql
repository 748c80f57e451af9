-- How budgets stand in their present period, by name. One row per budget; of one for each ticket, task or team, used is that of the account that has used most, and spent_usd of all together.
SELECT
  name, any_value(scope) AS scope, any_value(period) AS period, max(used) AS used,
  CAST(sum(spent_usd) AS DECIMAL(38,9)) AS spent_usd, min(limit_usd) AS limit_usd,
  CASE WHEN count(*) = 1 THEN any_value(remaining_usd) END AS remaining_usd,
  CASE WHEN count(*) = 1 THEN any_value(forecast_usd) END AS forecast_usd,
  CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls, CAST(sum(accounts) AS BIGINT) AS accounts,
  CAST(sum(accounts_over) AS BIGINT) AS accounts_over, any_value(mode) AS mode, any_value(on_exceed) AS on_exceed,
  any_value(owner) AS owner
FROM budget_status
WHERE list_contains($names, name)
GROUP BY name
ORDER BY name
