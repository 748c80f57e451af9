-- How budgets stand, by name, so that no person is ranked; of a budget for each ticket or task what spent most first.
SELECT * REPLACE (round(used, 4) AS used)
FROM budget_status
ORDER BY name, spent_usd DESC, value
