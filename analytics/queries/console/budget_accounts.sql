-- The accounts of a budget in its present period; of one for each ticket or task what spent most first. One row per account.
SELECT
  value, used, spent_usd, limit_usd, remaining_usd, forecast_usd, unpriced_calls, accounts, accounts_over,
  period_start AS starts_at, period_end AS ends_at
FROM budget_status
WHERE name = $name
ORDER BY spent_usd DESC, value
