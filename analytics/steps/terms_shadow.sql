-- Budgets in shadow mode with their periods between the variables first and last, as far as the calendar goes. One row per budget and period.
SELECT
  budgets.name, kind, value, pattern, budgets.period,
  CASE budgets.period WHEN 'rolling_24h' THEN getvariable('first') - INTERVAL 24 HOUR ELSE period_start END
    AS period_start,
  least(period_end, getvariable('last')) AS period_end
FROM budgets LEFT JOIN budget_calendar AS calendar ON calendar.period = budgets.period
  AND calendar.timezone = budgets.timezone AND period_end > getvariable('first') AND period_start < getvariable('last')
WHERE mode = 'shadow' AND (budgets.period IN ('total', 'rolling_24h') OR period_start IS NOT NULL)
