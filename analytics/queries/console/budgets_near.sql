-- Budgets by how much of their limit is spent. Of persons and keys none is shown.
SELECT name, scope, value, used, spent_usd, limit_usd, forecast_usd, unpriced_calls, period, mode
FROM budget_status
WHERE scope NOT LIKE 'user:%' AND scope NOT LIKE 'key:%' AND scope NOT IN ('each_user', 'each_key')
ORDER BY used DESC NULLS LAST, name, value
