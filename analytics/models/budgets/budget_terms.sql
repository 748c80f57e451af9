-- Budgets with the period that now is in. One row per budget.
-- @as_of: Now, UTC
-- @period_start: From when calls count, UTC; of a rolling window a full five minutes; NULL for total
-- @period_end: Until when calls count, UTC; NULL where there is no end
-- A rolling window forgets five minutes at once, late rather than early, as gateway/budgets.py does.
SELECT
  budgets.*,
  CASE budgets.period
    WHEN 'rolling_24h' THEN make_timestamp((epoch_us(as_of) - 86400000000) // 300000000 * 300000000)
    ELSE period_start
  END AS period_start,
  period_end
FROM (SELECT *, make_timestamp(epoch_us(now())) AS as_of FROM budgets) AS budgets
  LEFT JOIN budget_calendar AS calendar ON calendar.period = budgets.period AND calendar.timezone = budgets.timezone
    AND as_of >= period_start AND as_of < period_end
